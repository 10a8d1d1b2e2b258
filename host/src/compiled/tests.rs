use super::*;

fn description() -> Description {
    Description {
        weights_shared: false,
        version: VERSION,
        provider: PROVIDER.to_owned(),
        soc: "SM8750".to_owned(),
        soc_model: 69,
        htp_arch: 79,
        runtime: "1.32.0".to_owned(),
        provider_version: Some("2.7.0".to_owned()),
        compatibility: None,
        graphs: Vec::new(),
        files: Vec::new(),
    }
}

fn write(folder: &Path, description: &Description) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(DESCRIPTION), serde_json::to_string(description).unwrap()).unwrap();
}

#[test]
fn the_folder_is_that_of_the_chip() {
    let root = tempfile::tempdir().unwrap();
    let (soc, other) = (soc::named("SM8750").unwrap(), soc::named("SM8550").unwrap());
    let message = below(root.path(), None).unwrap_err().to_string();
    assert!(message.contains("nothing that `lfm2-host compile` made"), "{message}");
    write(&root.path().join("SM8750"), &description());
    assert_eq!(below(root.path(), None).unwrap(), root.path().join("SM8750"));
    assert_eq!(below(&root.path().join("SM8750"), Some(other)).unwrap(), root.path().join("SM8750"));
    assert_eq!(chip(root.path(), &SessionOptions::default()).unwrap(), "SM8750");
    let message = below(root.path(), Some(other)).unwrap_err().to_string();
    assert!(message.contains("nothing for SM8550, only for SM8750"), "{message}");
    write(&root.path().join("SM8550"), &description());
    let message = below(root.path(), None).unwrap_err().to_string();
    assert!(message.contains("soc_model=") && message.contains("SM8550, SM8750"), "{message}");
    assert_eq!(below(root.path(), Some(soc)).unwrap(), root.path().join("SM8750"));
}

#[test]
fn descriptions_of_other_versions_are_refused() {
    let path = Path::new("x.json");
    let text = serde_json::to_string(&description()).unwrap();
    assert_eq!(described(path, &text).unwrap(), description());
    let message = described(path, &text.replace("\"version\":1", "\"version\":2")).unwrap_err().to_string();
    assert!(message.contains("x.json") && message.contains("version is 2"), "{message}");
    assert!(described(path, "{}").is_err());
}

#[test]
fn one_chip_is_meant() {
    let options = |value: &str| SessionOptions {
        provider: vec![("soc_model".to_owned(), value.to_owned())],
        ..SessionOptions::default()
    };
    assert_eq!(wanted_soc(&SessionOptions::default()).unwrap(), None);
    for value in ["69", "SM8750"] {
        assert_eq!(wanted_soc(&options(value)).unwrap().map(|soc| soc.model), Some(69));
    }
    let message = wanted_soc(&options("69,43")).unwrap_err().to_string();
    assert!(message.contains("soc_model=69,43") && message.contains("one chip"), "{message}");
}

#[test]
fn what_runs_it_is_what_it_was_made_for() {
    let found = |runtime: &'static str, minor| Found {
        is_simulated: true,
        runtime,
        minor,
        provider: PROVIDER,
        provider_version: Some("2.7.0".to_owned()),
        soc: soc::named("69"),
        htp_arch: Some("79".to_owned()),
    };
    let problems = |found: &Found<'_>| description().host_problems(found);
    assert!(problems(&found("1.32.0", 32)).is_empty());
    assert!(problems(&found("1.33.0", 33)).is_empty(), "newer ones read what older ones wrote");
    assert!(problems(&found("1.31.0", 31))[0].contains("1.31.0"));
    let other = Found { htp_arch: Some("75".to_owned()), ..found("1.32.0", 32) };
    assert_eq!(problems(&other), ["it is for NPUs of the generation 79, and htp_arch is 75"]);
    let other = Found { soc: soc::named("43"), ..found("1.32.0", 32) };
    assert!(problems(&other)[0].contains("SM8750 (69)"));
    let unknown = Found { provider_version: None, ..found("1.32.0", 32) };
    assert!(problems(&unknown)[0].contains("unknown version"));
    let shared = Description { weights_shared: true, ..description() };
    let problems = shared.host_problems(&found("1.32.0", 32));
    assert!(problems.len() == 1 && problems[0].contains("share their weights"), "{problems:?}");
    assert!(shared.host_problems(&Found { is_simulated: false, ..found("1.32.0", 32) }).is_empty());
    let both = Description { provider_version: None, ..description() }.host_problems(&unknown);
    assert!(both[0].contains("unknown version"), "{both:?}");
}

#[cfg(unix)]
#[test]
fn what_was_left_half_done_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let (gone, here) = (gone.id(), std::process::id());
    let names =
        [format!(".SM8750.{gone}.partial"), format!(".SM8750.{here}.partial"), format!(".SM8550.{gone}.partial")];
    for name in names.iter().map(String::as_str).chain(["SM8750", ".SM8750.x.partial"]) {
        write(&root.path().join(name), &description());
    }
    compile::remove_abandoned(root.path(), "SM8750").unwrap();
    let is_there = names.map(|name| root.path().join(name).exists());
    assert_eq!(is_there, [false, true, true], "only what nobody works on");
    assert_eq!(root.path().read_dir().unwrap().count(), 4);
}

#[test]
fn what_this_process_has_half_done_can_be_removed() {
    let root = tempfile::tempdir().unwrap();
    let (own, other) = (std::process::id(), std::process::id() + 1);
    let names = [format!(".SM8750.{own}.partial"), format!(".SM8750.{other}.partial"), "SM8750".to_owned()];
    names.iter().for_each(|name| write(&root.path().join(name), &description()));
    drop(remove_partial(root.path()));
    assert_eq!(names.map(|name| root.path().join(name).exists()), [false, true, true]);
    drop(remove_partial(&root.path().join("gone")));
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_there_is_replaced_by_what_is_whole() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("SM8750");
    for file in ["first", "second"] {
        let partial = compile::Partial::create(root.path(), "SM8750").unwrap();
        write(&partial.0, &description());
        fs::write(partial.0.join(file), "").unwrap();
        partial.replace(&folder).unwrap();
        assert_eq!(names(&folder).len(), 2);
        assert!(folder.join(file).is_file() && folder.join(DESCRIPTION).is_file());
        assert_eq!(names(root.path()), ["SM8750"]);
    }
    // One that is given up leaves what is there.
    drop(compile::Partial::create(root.path(), "SM8750").unwrap());
    assert_eq!(names(root.path()), ["SM8750"]);
    assert!(folder.join("second").is_file());
}

#[test]
fn a_folder_of_the_same_process_number_is_emptied() {
    let root = tempfile::tempdir().unwrap();
    let left = root.path().join(format!(".SM8750.{}.partial", std::process::id()));
    write(&left, &description());
    let partial = compile::Partial::create(root.path(), "SM8750").unwrap();
    assert_eq!((&partial.0, names(&left)), (&left, vec![]));
}

#[cfg(unix)]
#[test]
fn what_was_about_to_be_replaced_is_there_again() {
    let root = tempfile::tempdir().unwrap();
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let replaced = root.path().join(format!(".SM8750.{}.replaced", gone.id()));
    let running = root.path().join(format!(".SM8750.{}.replaced", std::process::id()));
    write(&running, &description());
    for is_there in [false, true] {
        write(&replaced, &description());
        assert_eq!(root.path().join("SM8750").exists(), is_there);
        compile::remove_abandoned(root.path(), "SM8750").unwrap();
        assert!(root.path().join("SM8750").join(DESCRIPTION).is_file() && !replaced.exists() && running.exists());
    }
}

#[test]
fn what_is_not_ours_is_refused_before_anything_is_compiled() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("SM8750");
    compile::refuse_foreign(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    compile::refuse_foreign(&folder).unwrap();
    fs::write(folder.join("thesis.docx"), "").unwrap();
    let message = compile::refuse_foreign(&folder).unwrap_err().to_string();
    assert!(message.contains("SM8750") && message.contains("--out"), "{message}");
    write(&folder, &description());
    compile::refuse_foreign(&folder).unwrap();
}

#[test]
fn nothing_is_begun_or_replaced_while_the_program_ends() {
    let root = tempfile::tempdir().unwrap();
    let partial = compile::Partial::create(root.path(), "SM8750").unwrap();
    write(&partial.0, &description());
    let ending = remove_partial(root.path());
    let out = root.path().to_owned();
    let compiling = std::thread::spawn(move || {
        // What is renamed is gone.
        partial.replace(&out.join("SM8750")).unwrap_err();
        compile::Partial::create(&out, "SM8750").unwrap().0.exists()
    });
    assert_eq!(names(root.path()), Vec::<String>::new());
    drop(ending);
    assert!(compiling.join().unwrap());
    assert_eq!(names(root.path()), Vec::<String>::new());
}

use super::*;

fn description() -> Description {
    Description {
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

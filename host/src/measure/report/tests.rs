use super::*;
use crate::measure::tests::{decode, prefill};

fn record(change: impl FnOnce(&mut Record), row: &crate::measure::Row) -> Record {
    let mut record = match serde_json::to_value(row).unwrap() {
        serde_json::Value::Object(record) => record,
        other => panic!("{other}"),
    };
    change(&mut record);
    record
}

/// Rows of two providers at two depths, and one that crashed.
fn objects() -> Vec<Record> {
    let set = |provider: &'static str, depth: u64| {
        move |record: &mut Record| {
            record.insert("provider".to_owned(), provider.into());
            record.insert("n_depth".to_owned(), depth.into());
        }
    };
    let crashed = |record: &mut Record| {
        record.insert("provider".to_owned(), "qnn".into());
        record.insert("status".to_owned(), "crashed".into());
        record.insert("error".to_owned(), "its process was ended by SIGSEGV (signal 11)".into());
        ["avg_ts", "median_ts", "samples_ns"].iter().for_each(|name| drop(record.remove(*name)));
    };
    let decode = decode();
    vec![
        record(set("cpu", 0), &decode),
        record(set("cpu", 512), &decode),
        record(set("cuda", 0), &decode),
        record(set("cuda", 512), &decode),
        record(set("cpu", 0), &prefill()),
        record(crashed, &decode),
    ]
}

/// Whether all elements of a page are closed in order.
fn check_elements(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    for piece in page.split('<').skip(1) {
        let tag = piece.split('>').next().unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('!') || tag.ends_with('/') || name == "meta" {
            continue;
        }
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "closed by {tag}"),
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_page_shows_all_there_is_and_needs_nothing_else() {
    let page = report(&objects(), "Two providers").html();
    check_elements(&page);
    for text in [
        "Speed by provider",
        "Decoding over depth",
        "Roofline",
        "Memory",
        "same best token",
        "87.5",
        "CPUExecutionProvider 412",
        "lfm2.onnx_data",
        "2097152",
        "52.0 °C, cpu-thermal",
        "SIGSEGV",
        "<caption>",
        "prefers-color-scheme: dark",
        "@media print",
    ] {
        assert!(page.contains(text), "{text} is missing");
    }
    for outside in ["<script", "http://", "https://", "url(", "@import", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("role=\"img\"").count());
    assert_eq!(
        page.matches("<svg").count(),
        page.matches("-desc\">Bars").count() + page.matches("-desc\">tokens").count()
    );
}

#[test]
fn markdown_has_the_numbers_of_the_figures() {
    let text = report(&objects(), "Two | providers").markdown();
    assert!(text.starts_with("# Two \\| providers\n"), "{text}");
    assert!(text.contains("| cuda |") && text.contains("Decoding over depth"), "{text}");
    for block in text.split("\n\n").filter(|block| block.starts_with('|')) {
        let columns: Vec<_> = block.lines().map(|line| line.replace("\\|", "").matches('|').count()).collect();
        assert!(columns.iter().all(|count| *count == columns[0]), "{block}");
    }
}

#[test]
fn hostile_text_stays_text() {
    let evil = "</table><script>alert(1)</script>\u{0}";
    let names = ["model_filename", "device", "cpu_info", "provider", "error", "test_name", "precision", "reference"];
    let set = |record: &mut Record| names.iter().for_each(|name| drop(record.insert((*name).to_owned(), evil.into())));
    let objects: Vec<_> = [record(set, &decode()), record(|_| {}, &prefill())].into();
    let page = report(&objects, evil).html();
    assert!(!page.contains("<script") && !page.contains('\u{0}'), "{page}");
    check_elements(&page);
    assert!(!report(&objects, evil).markdown().contains("\n<"));
}

#[test]
fn what_is_missing_or_of_another_kind_is_no_failure() {
    let row = |text: &str| serde_json::from_str::<Record>(text).unwrap();
    let objects = [
        row(r#"{"n_prompt":8,"n_gen":0,"n_depth":0,"samples_ns":[1000]}"#),
        row(r#"{"n_prompt":8,"n_gen":4,"n_depth":0,"avg_ts":null,"status":7}"#),
        row(r#"{"system":"another","build_s":1}"#),
        row(r#"{"system":"another","prompt":8,"prefill_s":[2.0],"decode_s":[[0.5,0.5],[]]}"#),
        row(r#"{"model":{"graph":"q4/lfm2.onnx"},"perplexity":{"value":3.5},"fidelity":{"agreement":{"value":0.5}}}"#),
        row(r#"{"n_prompt":0,"n_gen":4,"n_depth":1e400,"median_ts":1}"#.replace("1e400", "5").as_str()),
    ];
    let page = report(&objects, "Old").html();
    check_elements(&page);
    assert!(page.contains("1 object of other kinds, which are left out"), "{page}");
    assert!(page.contains("q4/lfm2.onnx") && page.contains("50.0"), "{page}");
    assert!(
        page.contains(">4.00</td>") && page.contains(">2.00</td>"),
        "tokens per second of the other system: {page}"
    );
    check_elements(&report(&[], "Nothing").html());
}

#[test]
fn simulators_are_told() {
    let set = |record: &mut Record| {
        record.insert("provider".to_owned(), "qnn".into());
        record.insert("provider_device".to_owned(), "NPU, simulated on the CPU".into());
    };
    let page = report(&[record(set, &decode()), record(|_| {}, &decode())], "Both").html();
    assert!(page.contains("qnn (simulated)") && page.contains("NPU, simulated on the CPU"), "{page}");
}

#[test]
fn machines_have_sections_of_their_own() {
    let set = |record: &mut Record| drop(record.insert("device".to_owned(), "phone".into()));
    let mut objects = objects();
    objects.push(record(set, &decode()));
    let page = report(&objects, "Both").html();
    assert!(
        page.contains(">All machines</h2>")
            && page.contains(">no result<")
            && page.contains(">phone, Some &quot;fast&quot; CPU"),
        "{page}"
    );
    assert_eq!(page.matches(">Machine and programs.</caption>").count(), 2);
}

#[test]
fn many_series_become_a_table() {
    let many = (1..40_u64)
        .map(|threads| record(|record| drop(record.insert("n_threads".to_owned(), threads.into())), &decode()));
    let page = report(&many.collect::<Vec<_>>(), "Many").html();
    check_elements(&page);
    assert!(page.contains("39 threads") && !page.contains("<svg"), "{}", page.len());
}

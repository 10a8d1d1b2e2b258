//! Fetching checkpoints from a server on loopback that answers like the hub.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lfm2_export::checkpoint::Checkpoint;
use lfm2_export::config::ModelConfig;
use lfm2_export::hub::{Hub, HubError};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn a_model_is_fetched_and_found_again_without_downloads() {
    let server = Server::start(Model::fixture("tiny-chat"));
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(&cache);
    let folder = hub.fetch("org/model").unwrap();
    let names = sorted_names(&folder);
    assert_eq!(
        names,
        [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json"
        ],
        "and not README.md, which the server has as well"
    );
    for name in &names {
        assert_eq!(fs::read(folder.join(name)).unwrap(), fs::read(fixture("tiny-chat").join(name)).unwrap(), "{name}");
    }
    ModelConfig::load(&folder).unwrap();
    Checkpoint::open(&folder).unwrap();

    server.forget_requests();
    assert_eq!(hub.fetch("org/model").unwrap(), folder);
    assert_eq!(server.requests(), ["GET /api/models/org/model/revision/main"]);

    // Without the server, only `offline` finds it.
    let endpoint = server.endpoint();
    drop(server);
    let error = hub.fetch("org/model").unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    assert!(error.to_string().contains(&endpoint) && error.to_string().contains("--offline"), "{error}");
    let offline = Hub { offline: true, ..hub };
    assert_eq!(offline.fetch("org/model").unwrap(), folder);
}

#[test]
fn shards_are_fetched_as_the_index_names_them() {
    let mut model = Model::fixture("tiny-random/sharded");
    model.add_tokenizer();
    // Not named by the index, so not needed.
    model.add("model-00003-of-00002.safetensors", b"unused");
    let server = Server::start(model);
    let cache = tempfile::tempdir().unwrap();
    let folder = server.hub(&cache).fetch("org/model").unwrap();
    Checkpoint::open(&folder).unwrap();
    assert!(!folder.join("model-00003-of-00002.safetensors").exists());
}

#[test]
fn a_connection_that_is_cut_continues_where_it_stopped() {
    let mut model = Model::fixture("tiny-chat");
    model.cut_after.insert("model.safetensors".to_owned(), vec![3_000_000, 2_000_000]);
    let server = Server::start(model);
    let cache = tempfile::tempdir().unwrap();
    let folder = server.hub(&cache).fetch("org/model").unwrap();
    Checkpoint::open(&folder).unwrap();
    assert_eq!(
        server.ranges("model.safetensors"),
        ["bytes=0-", "bytes=3000000-", "bytes=5000000-"],
        "every attempt continues the one before"
    );
}

#[test]
fn a_program_that_is_stopped_continues_in_its_next_run() {
    let mut model = Model::fixture("tiny-chat");
    // More cuts than one run tries.
    model.cut_after.insert("model.safetensors".to_owned(), vec![1_000_000; 5]);
    let server = Server::start(model);
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(&cache);
    let error = hub.fetch("org/model").unwrap_err();
    assert!(matches!(error, HubError::Download { attempts: 5, .. }), "{error}");
    assert!(error.to_string().contains("run again"), "{error}");
    // What is not complete is not taken for complete.
    let offline = Hub { offline: true, ..hub.clone() };
    assert!(matches!(offline.fetch("org/model"), Err(HubError::NotCached { .. })));

    server.forget_requests();
    let folder = hub.fetch("org/model").unwrap();
    assert_eq!(server.ranges("model.safetensors"), ["bytes=5000000-"]);
    Checkpoint::open(&folder).unwrap();
}

#[test]
fn contents_other_than_promised_are_thrown_away() {
    let mut model = Model::fixture("tiny-chat");
    model.damage_once.insert("model.safetensors".to_owned());
    let server = Server::start(model);
    let cache = tempfile::tempdir().unwrap();
    let folder = server.hub(&cache).fetch("org/model").unwrap();
    assert_eq!(
        fs::read(folder.join("model.safetensors")).unwrap(),
        fs::read(fixture("tiny-chat/model.safetensors")).unwrap()
    );
    assert_eq!(server.ranges("model.safetensors").len(), 2);
}

#[test]
fn private_models_need_a_token() {
    let server = Server::start(Model { token: Some("secret"), ..Model::fixture("tiny-chat") });
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(&cache);
    let error = hub.fetch("org/model").unwrap_err();
    assert!(matches!(error, HubError::Unauthorized { has_token: false, .. }), "{error}");
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
    let wrong = Hub { token: Some("wrong".to_owned()), ..hub.clone() };
    let error = wrong.fetch("org/model").unwrap_err();
    assert!(matches!(error, HubError::Unauthorized { has_token: true, .. }), "{error}");
    let right = Hub { token: Some("secret".to_owned()), ..hub };
    Checkpoint::open(&right.fetch("org/model").unwrap()).unwrap();
}

#[test]
fn gated_models_need_their_terms_accepted() {
    // The list of files of a gated model is public.
    let server = Server::start(Model { gated: true, ..Model::fixture("tiny-chat") });
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub { token: Some("secret".to_owned()), ..server.hub(&cache) };
    let error = hub.fetch("org/model").unwrap_err();
    assert!(matches!(error, HubError::Forbidden { .. }), "{error}");
    assert!(error.to_string().contains(&format!("accept its terms at {}/org/model", server.endpoint())), "{error}");
}

#[test]
fn wrong_names_and_revisions_are_told_apart() {
    let server = Server::start(Model::fixture("tiny-chat"));
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(&cache);
    let error = hub.fetch("org/nothing").unwrap_err();
    assert!(matches!(error, HubError::NoRepo { .. }), "{error}");
    let other = Hub { revision: "v9".to_owned(), ..hub.clone() };
    let error = other.fetch("org/model").unwrap_err();
    assert!(matches!(&error, HubError::NoRevision { revision, .. } if revision == "v9"), "{error}");
    assert!(matches!(hub.fetch("model"), Err(HubError::Name { .. })));

    for revision in ["refs/pr/1", COMMIT] {
        let other = Hub { revision: revision.to_owned(), ..hub.clone() };
        let folder = other.fetch("org/model").unwrap();
        assert_eq!(Hub { offline: true, ..other }.fetch("org/model").unwrap(), folder, "{revision}");
    }
}

#[test]
fn models_that_were_renamed_are_followed() {
    let server = Server::start(Model::fixture("tiny-chat"));
    let cache = tempfile::tempdir().unwrap();
    let folder = server.hub(&cache).fetch("old/model").unwrap();
    Checkpoint::open(&folder).unwrap();
}

#[test]
fn models_that_cannot_be_exported_are_refused_before_their_weights_are_fetched() {
    let mut moe = Model::fixture("tiny-chat");
    moe.add("config.json", br#"{"model_type": "lfm2_moe"}"#);
    let server = Server::start(moe);
    let cache = tempfile::tempdir().unwrap();
    let error = server.hub(&cache).fetch("org/model").unwrap_err();
    assert!(matches!(error, HubError::Config(_)), "{error}");
    assert!(server.ranges("model.safetensors").is_empty());

    let mut converted = Model::fixture("tiny-chat");
    for name in ["model.safetensors", "tokenizer.json"] {
        converted.files.remove(name);
    }
    converted.add("model-Q4_0.gguf", b"GGUF");
    let server = Server::start(converted);
    let error = server.hub(&cache).fetch("org/model").unwrap_err();
    let HubError::Incomplete { files, .. } = &error else { panic!("{error}") };
    assert_eq!(files.len(), 2, "{error}");
}

#[test]
fn offline_says_what_is_missing() {
    let server = Server::start(Model::fixture("tiny-chat"));
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(&cache);
    let offline = Hub { offline: true, ..hub.clone() };
    let error = offline.fetch("org/model").unwrap_err();
    assert!(matches!(&error, HubError::NotCached { files, .. } if files.is_empty()), "{error}");
    let folder = hub.fetch("org/model").unwrap();
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let error = offline.fetch("org/model").unwrap_err();
    for part in ["tokenizer.json", "model.safetensors", "--offline"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    // And the network brings it back.
    Checkpoint::open(&hub.fetch("org/model").unwrap()).unwrap();
}

#[test]
fn a_silent_server_is_given_up() {
    for (file, after) in [(None, 0), (None, 200), (Some("config.json"), 10), (Some("model.safetensors"), 1_000_000)] {
        let cache = tempfile::tempdir().unwrap();
        let mut model = Model::fixture("tiny-chat");
        model.stalled = Some((file.map_or("main", |file| file), after));
        let server = Server::start(model);
        let hub = Hub { patience: Duration::from_millis(500), ..server.hub(&cache) };
        let start = Instant::now();
        let error = hub.fetch("org/model").unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        match file {
            None => assert!(matches!(error, HubError::Network { .. }), "{error}"),
            Some(name) => assert!(matches!(&error, HubError::Stalled { file, .. } if file == name), "{error}"),
        }
    }
}

#[test]
fn shards_that_the_repository_lacks_are_named() {
    let mut model = Model::fixture("tiny-random/sharded");
    model.add_tokenizer();
    model.files.remove("model-00002-of-00002.safetensors");
    let server = Server::start(model);
    let cache = tempfile::tempdir().unwrap();
    let error = server.hub(&cache).fetch("org/model").unwrap_err();
    let HubError::Incomplete { files, .. } = &error else { panic!("{error}") };
    assert_eq!(files, &["model-00002-of-00002.safetensors"]);
    assert!(server.ranges("model-00001-of-00002.safetensors").is_empty(), "nothing is downloaded in vain");
}

#[test]
fn an_index_beside_a_single_file_is_not_looked_at() {
    let mut model = Model::fixture("tiny-chat");
    model.add("model.safetensors.index.json", b"{}");
    let server = Server::start(model);
    let cache = tempfile::tempdir().unwrap();
    Checkpoint::open(&server.hub(&cache).fetch("org/model").unwrap()).unwrap();
}

#[test]
fn tokens_that_are_none_are_not_sent() {
    let server = Server::start(Model::fixture("tiny-chat"));
    let cache = tempfile::tempdir().unwrap();
    for token in ["", "a\nb", "a b", "ä"] {
        let hub = Hub { token: Some(token.to_owned()), ..server.hub(&cache) };
        assert!(matches!(hub.fetch("org/model"), Err(HubError::Token)), "{token:?}");
    }
    assert_eq!(server.requests(), Vec::<String>::new());
}

#[test]
fn a_busy_server_is_asked_again() {
    let mut model = Model::fixture("tiny-chat");
    model.busy_once.insert("tokenizer.json".to_owned());
    let server = Server::start(model);
    let cache = tempfile::tempdir().unwrap();
    server.hub(&cache).fetch("org/model").unwrap();
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn sorted_names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What the server has, and how it behaves. The model is `org/model` and was `old/model` before; its only commit is
/// [`COMMIT`], which is also `main` and `refs/pr/1`.
#[derive(Default)]
struct Model {
    files: BTreeMap<String, Vec<u8>>,
    /// The last part of the path of which only that many bytes are ever sent.
    stalled: Option<(&'static str, usize)>,
    /// Everything needs this token.
    token: Option<&'static str>,
    /// Files are refused, whoever asks.
    gated: bool,
    /// After how many bytes the connection is closed, for each of the next downloads of a file.
    cut_after: BTreeMap<String, Vec<usize>>,
    /// Files whose first download has a wrong byte.
    damage_once: HashSet<String>,
    /// Files whose first request is answered with 503.
    busy_once: HashSet<String>,
}

impl Model {
    fn fixture(name: &str) -> Self {
        let folder = fixture(name);
        let read = |name: String| (name.clone(), fs::read(folder.join(name)).unwrap());
        let mut model = Self {
            files: sorted_names(&folder).into_iter().filter(|name| !name.ends_with(".py")).map(read).collect(),
            ..Self::default()
        };
        model.add("README.md", b"# A model");
        model
    }

    fn add(&mut self, name: &str, contents: &[u8]) {
        self.files.insert(name.to_owned(), contents.to_vec());
    }

    fn add_tokenizer(&mut self) {
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            self.add(name, &fs::read(fixture("tiny-chat").join(name)).unwrap());
        }
    }
}

/// A server on loopback, until it is dropped.
struct Server {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    endpoint: String,
    model: Mutex<Model>,
    requests: Mutex<Vec<Request>>,
    is_over: AtomicBool,
}

impl Server {
    fn start(model: Model) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            endpoint: format!("http://{address}"),
            model: Mutex::new(model),
            requests: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.is_over.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&shared);
                // A client that goes away is no failure of the server.
                thread::spawn(move || stream.and_then(|stream| shared.serve(stream)));
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    fn endpoint(&self) -> String {
        self.state.endpoint.clone()
    }

    fn hub(&self, cache: &TempDir) -> Hub {
        Hub {
            endpoint: self.endpoint(),
            token: None,
            cache_dir: cache.path().to_owned(),
            revision: "main".to_owned(),
            offline: false,
            patience: Duration::from_secs(20),
        }
    }

    /// Method and path of every request.
    fn requests(&self) -> Vec<String> {
        self.state
            .requests
            .lock()
            .unwrap()
            .iter()
            .map(|request| format!("{} {}", request.method, request.path))
            .collect()
    }

    /// The ranges asked for when `file` was downloaded from where the hub redirects to. That its size was asked for, with
    /// a range of one byte, does not count.
    fn ranges(&self, file: &str) -> Vec<String> {
        let requests = self.state.requests.lock().unwrap();
        let downloads = requests.iter().filter(|request| request.path == format!("/cdn/{file}"));
        downloads.filter_map(|request| request.range.clone()).filter(|range| range != "bytes=0-0").collect()
    }

    fn forget_requests(&self) {
        self.state.requests.lock().unwrap().clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        // The connection wakes the thread that waits for one.
        drop(TcpStream::connect(self.address));
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Request {
    method: String,
    path: String,
    range: Option<String>,
    token: Option<String>,
}

impl Request {
    fn read(stream: &TcpStream) -> io::Result<Self> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let mut words = first.split(' ').map(str::to_owned);
        let mut request = Self {
            method: words.next().unwrap_or_default(),
            path: words.next().unwrap_or_default(),
            range: None,
            token: None,
        };
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = Some(value.to_owned()),
                "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_owned),
                _ => {}
            }
        }
        Ok(request)
    }

    /// The first byte and the one after the last, of `length`.
    fn bounds(&self, length: usize) -> (usize, usize) {
        let Some(range) = self.range.as_deref().and_then(|range| range.strip_prefix("bytes=")) else {
            return (0, length);
        };
        let (start, end) = range.split_once('-').unwrap();
        (start.parse().unwrap(), end.parse().map_or(length, |end: usize| (end + 1).min(length)))
    }
}

/// An answer: status, further headers, body, and after how much of it the connection is closed.
struct Answer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    cut_after: Option<usize>,
    /// After how many bytes, the head included, nothing more is sent, while the connection stays open.
    stalls_after: Option<usize>,
}

impl Answer {
    fn new(status: &'static str) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), cut_after: None, stalls_after: None }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn send(self, mut stream: &TcpStream) -> io::Result<()> {
        let mut head =
            format!("HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(bytes) = self.stalls_after {
            let all = [(head + "\r\n").as_bytes(), &self.body].concat();
            stream.write_all(&all[..bytes.min(all.len() - 1)])?;
            thread::sleep(Duration::from_secs(5));
            return Ok(());
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        stream.write_all(&self.body[..self.cut_after.unwrap_or(self.body.len()).min(self.body.len())])?;
        stream.shutdown(Shutdown::Write)
    }
}

impl State {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        let request = Request::read(&stream)?;
        let mut answer = self.answer(&request);
        let stalled = self.model.lock().unwrap().stalled.filter(|(name, _)| {
            request.range.as_deref() != Some("bytes=0-0") && request.path.rsplit('/').next() == Some(name)
        });
        answer.stalls_after = stalled.map(|(_, bytes)| bytes);
        self.requests.lock().unwrap().push(request);
        answer.send(&stream)
    }

    fn answer(&self, request: &Request) -> Answer {
        let model = &mut *self.model.lock().unwrap();
        if let Some(file) = request.path.strip_prefix("/cdn/") {
            return contents(model, file, request);
        }
        if request.path.contains("old/model") {
            let path = request.path.replacen("old/model", "org/model", 1);
            return Answer::new("307 Temporary Redirect").with("Location", path);
        }
        if let Some(token) = model.token
            && request.token.as_deref() != Some(token)
        {
            return Answer::new("401 Unauthorized").with("X-Error-Code", "RepoNotFound");
        }
        if let Some(revision) = request.path.strip_prefix("/api/models/org/model/revision/") {
            return match revision {
                "main" | "refs%2Fpr%2F1" | COMMIT => self.list(model),
                _ => Answer::new("404 Not Found").with("X-Error-Code", "RevisionNotFound"),
            };
        }
        let Some(file) = request.path.strip_prefix(&format!("/org/model/resolve/{COMMIT}/")) else {
            return Answer::new("404 Not Found").with("X-Error-Code", "RepoNotFound");
        };
        if model.gated {
            return Answer::new("403 Forbidden").with("X-Error-Code", "GatedRepo");
        }
        if model.busy_once.remove(file) {
            return Answer::new("503 Service Unavailable");
        }
        self.resolve(model, file, request)
    }

    fn list(&self, model: &Model) -> Answer {
        let siblings: Vec<_> = model.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body =
            serde_json::json!({ "id": "org/model", "sha": COMMIT, "siblings": siblings }).to_string().into_bytes();
        Answer { body, ..Answer::new("200 OK") }.with("Content-Type", "application/json")
    }

    /// Small files are answered, large ones are elsewhere.
    fn resolve(&self, model: &mut Model, file: &str, request: &Request) -> Answer {
        let Some(body) = model.files.get(file) else {
            return Answer::new("404 Not Found").with("X-Error-Code", "EntryNotFound");
        };
        let hash: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
        if file.ends_with(".safetensors") {
            return Answer::new("302 Found")
                .with("Location", format!("{}/cdn/{file}", self.endpoint))
                .with("X-Repo-Commit", COMMIT)
                .with("X-Linked-Etag", format!("\"{hash}\""))
                .with("X-Linked-Size", body.len().to_string())
                .with("ETag", "\"of the pointer\"");
        }
        // Small files have the hash of git, which is shorter.
        contents(model, file, request).with("X-Repo-Commit", COMMIT).with("ETag", format!("\"{}\"", &hash[..40]))
    }
}

fn contents(model: &mut Model, file: &str, request: &Request) -> Answer {
    let Some(body) = model.files.get(file) else { return Answer::new("404 Not Found") };
    let length = body.len();
    let (start, end) = request.bounds(length);
    let mut body = body[start..end].to_vec();
    let is_download = request.range.as_deref() != Some("bytes=0-0");
    if is_download && model.damage_once.remove(file) {
        *body.last_mut().unwrap() ^= 1;
    }
    let cuts = model.cut_after.get_mut(file).filter(|cuts| is_download && !cuts.is_empty());
    let cut_after = cuts.map(|cuts| cuts.remove(0));
    Answer { body, cut_after, ..Answer::new("206 Partial Content") }
        .with("Content-Range", format!("bytes {start}-{}/{length}", end.max(1) - 1))
}

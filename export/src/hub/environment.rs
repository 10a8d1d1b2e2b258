//! The environment variables that the hub's own programs read.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Hub, HubError};

/// Reads the settings with `variable`, which looks up one of them. Empty variables count as unset.
pub(super) fn read(variable: &dyn Fn(&str) -> Option<OsString>, user_home: Option<PathBuf>) -> Result<Hub, HubError> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let text = |name: &str| {
        path(name).and_then(|value| value.to_str().map(|text| text.trim().to_owned())).filter(|text| !text.is_empty())
    };
    let home = path("HF_HOME")
        .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| user_home.map(|home| home.join(".cache").join("huggingface")));
    let cache_dir = path("HF_HUB_CACHE").or_else(|| home.as_deref().map(|home| home.join("hub")));
    let token_file = path("HF_TOKEN_PATH").or_else(|| home.as_deref().map(|home| home.join("token")));
    Ok(Hub {
        endpoint: text("HF_ENDPOINT")
            .unwrap_or_else(|| "https://huggingface.co".to_owned())
            .trim_end_matches('/')
            .to_owned(),
        token: text("HF_TOKEN").or_else(|| saved_token(&token_file?)),
        cache_dir: cache_dir.ok_or(HubError::NoCache)?,
        revision: "main".to_owned(),
        patience: super::PATIENCE,
        offline: text("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
    })
}

/// The token that was saved when the user logged in, if any. Without it public models can still be fetched.
fn saved_token(path: &Path) -> Option<String> {
    let token = fs::read_to_string(path).ok()?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// What the hub's own programs take for yes.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(variables: &[(&str, &str)]) -> Hub {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        read(&find, Some(PathBuf::from("home"))).unwrap()
    }

    #[test]
    fn variables_decide_before_the_home_folder() {
        let hub = read_with(&[]);
        assert_eq!(hub.endpoint, "https://huggingface.co");
        assert_eq!(hub.cache_dir, Path::new("home/.cache/huggingface/hub"));
        assert_eq!((hub.token, hub.offline), (None, false));
        assert_eq!(read_with(&[("XDG_CACHE_HOME", "xdg")]).cache_dir, Path::new("xdg/huggingface/hub"));
        assert_eq!(read_with(&[("XDG_CACHE_HOME", "xdg"), ("HF_HOME", "hf")]).cache_dir, Path::new("hf/hub"));
        assert_eq!(read_with(&[("HF_HOME", "hf"), ("HF_HUB_CACHE", "cache")]).cache_dir, Path::new("cache"));
        assert_eq!(read_with(&[("HF_ENDPOINT", "http://mirror/ ")]).endpoint, "http://mirror");
        assert_eq!(read_with(&[("HF_TOKEN", "t\n")]).token.as_deref(), Some("t"));
        assert_eq!(read_with(&[("HF_TOKEN", ""), ("HF_HOME", "")]), read_with(&[]));
        for (value, offline) in
            [("1", true), ("True", true), ("yes", true), ("0", false), ("false", false), ("", false)]
        {
            assert_eq!(read_with(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value:?}");
        }
    }

    #[test]
    fn a_saved_token_is_used_if_no_variable_has_one() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().to_str().unwrap();
        assert_eq!(read_with(&[("HF_HOME", folder)]).token, None);
        fs::write(home.path().join("token"), "saved\n").unwrap();
        assert_eq!(read_with(&[("HF_HOME", folder)]).token.as_deref(), Some("saved"));
        for nothing in ["", " \n"] {
            let hub = read_with(&[("HF_HOME", folder), ("HF_TOKEN", nothing)]);
            assert_eq!(hub.token.as_deref(), Some("saved"), "{nothing:?}");
        }
        assert_eq!(read_with(&[("HF_HOME", folder), ("HF_TOKEN", "given")]).token.as_deref(), Some("given"));
    }

    #[test]
    fn without_any_folder_there_is_an_error() {
        assert!(matches!(read(&|_| None, None), Err(HubError::NoCache)));
    }
}

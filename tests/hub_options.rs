//! Hugging Face's environment variables: where the cache is, which hub, which token.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use lesion::weights::{ErrorKind, HubError, HubOptions, Token};

fn read(variables: &[(&str, &str)]) -> Result<HubOptions, HubError> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    HubOptions::from_lookup(|name| variables.get(name).map(OsString::from))
}

fn root(variables: &[(&str, &str)]) -> String {
    read(variables).unwrap().cache.root().display().to_string()
}

#[test]
fn the_cache_is_where_hugging_face_has_it() {
    let home = ("HOME", "/home/u");
    assert_eq!(root(&[home]), "/home/u/.cache/huggingface/hub");
    assert_eq!(root(&[home, ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
    assert_eq!(root(&[home, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/hf")]), "/hf/hub");
    assert_eq!(root(&[home, ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/hub")]), "/hub");
    assert_eq!(root(&[home, ("HF_HOME", "~/hf")]), "/home/u/hf/hub");
    assert_eq!(root(&[home, ("HF_HOME", "")]), "/home/u/.cache/huggingface/hub");
    let error = read(&[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("HF_HUB_CACHE"));
}

#[test]
fn records_are_in_lesions_own_cache() {
    let directory = |variables: &[_]| read(variables).unwrap().records.directory().map(Path::to_path_buf);
    assert_eq!(directory(&[("HOME", "/home/u")]).unwrap(), Path::new("/home/u/.cache/lesion"));
    assert_eq!(directory(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]).unwrap(), Path::new("/x/lesion"));
    assert_eq!(directory(&[("HF_HUB_CACHE", "/hub")]), None);
}

#[test]
fn offline_is_a_switch_with_known_words() {
    let offline = |value| read(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).map(|options| options.offline);
    for value in ["1", "true", "yes", "on", "ON", "True"] {
        assert!(offline(value).unwrap(), "{value}");
    }
    for value in ["0", "false", "no", "off", ""] {
        assert!(!offline(value).unwrap(), "{value}");
    }
    let error = offline("2").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("HF_HUB_OFFLINE=\"2\""), "{error}");
}

#[test]
fn the_endpoint_is_an_address() {
    let endpoint = |value| read(&[("HOME", "/h"), ("HF_ENDPOINT", value)]).map(|options| options.endpoint);
    assert_eq!(endpoint("https://hub.example/").unwrap().unwrap(), "https://hub.example");
    assert_eq!(endpoint("http://localhost:8080/hf").unwrap().unwrap(), "http://localhost:8080/hf");
    assert_eq!(endpoint("").unwrap(), None);
    for value in ["hub.example", "ftp://x", "https://", "https://a b", "https://x?y"] {
        let error = endpoint(value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(&format!("HF_ENDPOINT={value:?}")), "{error}");
    }
    let error = endpoint("https://user:password@hub.example").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("password"));
}

#[test]
fn the_token_comes_from_the_variable_or_the_file_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let token = |variables: &[(&str, &str)]| read(&[&[("HF_HOME", home)], variables].concat()).map(|read| read.token);
    assert_eq!(token(&[]).unwrap(), None);
    fs::write(folder.path().join("token"), "hf_FromFile\n").unwrap();
    assert_eq!(token(&[]).unwrap(), Token::new("hf_FromFile"));
    assert_eq!(token(&[("HF_TOKEN", " hf_FromVariable\n")]).unwrap(), Token::new("hf_FromVariable"));
    let other = folder.path().join("other");
    assert_eq!(token(&[("HF_TOKEN_PATH", other.to_str().unwrap())]).unwrap(), None);
    fs::write(&other, "hf_Other").unwrap();
    assert_eq!(token(&[("HF_TOKEN_PATH", other.to_str().unwrap())]).unwrap(), Token::new("hf_Other"));

    assert_eq!(format!("{:?}", Token::new("hf_Secret").unwrap()), "Token(hidden)");
    let error = token(&[("HF_TOKEN", "hf_Secret and more")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(!format!("{error} {error:?}").contains("hf_Secret"));
    fs::write(folder.path().join("token"), "hf_Secret\nhf_Second\n").unwrap();
    let error = token(&[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadFile);
    assert!(!format!("{error} {error:?}").contains("hf_Sec"));
    fs::write(folder.path().join("token"), "\n").unwrap();
    assert_eq!(token(&[]).unwrap(), None);
}

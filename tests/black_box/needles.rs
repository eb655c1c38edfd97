//! The search for what must stand nowhere, in the forms in which text tends to leak: as it is, escaped, in hexadecimal,
//! in base 64.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aho_corasick::AhoCorasick;
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER, HEXUPPER};
use tonic::Status;

/// What must not be found.
pub struct Needles {
    all: Vec<(String, Vec<u8>)>,
    /// The search for all of them at once.
    search: OnceLock<AhoCorasick>,
}

impl Needles {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { all: vec![], search: OnceLock::new() }
    }

    /// These bytes and no others.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) {
        assert!(bytes.len() >= 6, "{name} is too short to be told from chance");
        self.all.push((name.to_owned(), bytes.to_vec()));
        self.search.take();
    }

    /// A text in all forms.
    pub fn text(&mut self, text: &str) {
        let json = serde_json::to_string(text).unwrap();
        let mut ascii = String::new();
        for unit in json[1..json.len() - 1].encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => ascii.push(char::from(byte)),
                _ => write!(ascii, "\\u{unit:04x}").unwrap(),
            }
        }
        let debug = text.as_bytes().escape_ascii().to_string();
        let percent: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut forms = vec![text.to_owned(), ascii, debug, percent, format!("{:?}", text.as_bytes())];
        forms.extend([HEXLOWER.encode(text.as_bytes()), HEXUPPER.encode(text.as_bytes())]);
        // In base 64 a text looks otherwise at each of three places; its ends depend on the neighbours.
        for lead in 0..3 {
            let encoded = BASE64_NOPAD.encode(&[&b"\0\0\0"[..lead], text.as_bytes()].concat());
            let inner = &encoded[if lead == 0 { 0 } else { lead + 1 }..encoded.len() - 2];
            if inner.len() >= 8 {
                forms.push(inner.to_owned());
            }
        }
        forms.sort_unstable();
        forms.dedup();
        for form in forms {
            self.bytes(text, form.as_bytes());
        }
    }

    /// Where those stand that are in some bytes, and their names.
    pub fn places(&self, bytes: &[u8]) -> Vec<(usize, &str)> {
        let search = || AhoCorasick::new(self.all.iter().map(|(_, needle)| needle)).unwrap();
        let found = self.search.get_or_init(search).find_overlapping_iter(bytes);
        found.map(|found| (found.start(), self.all[found.pattern()].0.as_str())).collect()
    }

    /// The names of those that stand in some bytes.
    pub fn found(&self, bytes: &[u8]) -> Vec<&str> {
        let mut found: Vec<&str> = self.places(bytes).into_iter().map(|(_, name)| name).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Searches files, names of files included.
    pub fn absent_from(&self, files: &[PathBuf], when: &str) {
        for file in files {
            let bytes = match std::fs::read(file) {
                // A running vault removes files that it has compacted.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                bytes => bytes.unwrap(),
            };
            let found = self.found(&bytes);
            assert!(found.is_empty(), "{} holds {found:?} {when}", file.display());
            assert!(self.found(file.as_os_str().as_encoded_bytes()).is_empty(), "{}", file.display());
        }
    }

    /// A refusal does not repeat what was sent.
    pub fn absent_from_refusal(&self, status: &Status, what: &str) {
        let said = [status.message().as_bytes(), status.details()].concat();
        assert!(self.found(&said).is_empty(), "{what} is told: {status:?}");
    }
}

/// Every file in a folder and below.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all
}

/// The files that hold what was stored: not the certificates, nor the passphrase of a vault for development.
pub fn stored_files(vault: &Path) -> Vec<PathBuf> {
    let apart = |path: &PathBuf| !path.starts_with(vault.join("pki")) && !path.ends_with("dev-passphrase");
    let stored: Vec<PathBuf> = files(vault).into_iter().filter(apart).collect();
    for part in ["data", "keystore", "head", "journal"] {
        assert!(stored.iter().any(|file| file.starts_with(vault.join(part))), "no {part} was searched");
    }
    stored
}

#[test]
fn the_search_finds_a_value_in_every_form() {
    let mut needles = Needles::new();
    for value in ["欧阳志远之名", "11010519491231002x", "a \"quoted\" value"] {
        needles.text(value);
    }
    let name = "欧阳志远之名";
    for hidden in [
        format!("...{name}..."),
        r"..\u6b27\u9633\u5fd7\u8fdc\u4e4b\u540d..".to_owned(),
        format!("{:?}", bytes::Bytes::from(name)),
        format!("{:?}", name.as_bytes()),
        format!("{:?}", ("a \"quoted\" value", 1)),
        HEXLOWER.encode(format!("x{name}").as_bytes()),
        BASE64.encode(format!("{name}y").as_bytes()),
        BASE64.encode(format!("x{name}yz").as_bytes()),
        BASE64.encode(format!("xx{name}yz").as_bytes()),
    ] {
        assert_eq!(needles.found(hidden.as_bytes()).len(), 1, "{hidden}");
    }
    assert!(needles.found("欧阳志远, 110105********002X".as_bytes()).is_empty());
}

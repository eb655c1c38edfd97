//! Imports point one way: which room may use which.

use std::collections::BTreeSet;
use std::path::Path;

/// Each crate and the crates of this workspace that it may depend on.
const WALLS: [(&str, &[&str]); 18] = [
    ("proto", &[]),
    ("src/ids", &[]),
    ("keys/import", &[]),
    ("keys", &["ids", "key-import"]),
    ("keys/pkcs11", &["ids", "keys"]),
    ("keys/aws-kms", &["ids", "keys"]),
    ("keys/openbao", &["ids", "keys"]),
    ("src/schema", &["ids"]),
    ("src/access", &["ids"]),
    ("src/ledger", &["ids"]),
    ("src/export", &["ledger"]),
    ("src/storage", &["ids"]),
    ("src/storage/rocksdb", &["storage"]),
    ("src/commit", &["ids", "ledger", "storage"]),
    ("src/vault", &["ids", "keys", "schema", "access", "ledger", "storage", "commit"]),
    ("src/jobs", &["ids", "storage", "vault"]),
    ("src/server", &["access", "storage", "vault", "proto"]),
    (
        ".",
        &[
            "ids",
            "keys",
            "root-pkcs11",
            "root-aws-kms",
            "root-openbao",
            "schema",
            "access",
            "ledger",
            "export",
            "storage",
            "rocksdb",
            "commit",
            "vault",
            "jobs",
            "server",
            "proto",
        ],
    ),
];

#[test]
fn every_room_uses_only_the_rooms_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = |folder: &str| -> toml::Table {
        let path = root.join(folder).join("Cargo.toml");
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).parse().unwrap()
    };
    let workspace = manifest(".");
    let members: BTreeSet<String> = workspace["workspace"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member.as_str().unwrap().to_owned())
        .chain([".".to_owned()])
        .collect();
    let walled: BTreeSet<String> = WALLS.iter().map(|(folder, _)| (*folder).to_owned()).collect();
    assert_eq!(members, walled, "every member of the workspace stands in the table");
    for (folder, allowed) in WALLS {
        let manifest = manifest(folder);
        let used = manifest.get("dependencies").and_then(|table| table.as_table()).cloned().unwrap_or_default();
        for name in used.keys().filter_map(|name| name.strip_prefix("strongroom-")) {
            assert!(allowed.contains(&name), "{folder} may not use strongroom-{name}");
        }
    }
}

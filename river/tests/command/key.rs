//! `river key`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::lab::{Lab, ends, reads_and_ends};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_key_is_made_shown_and_replaced_only_by_force() {
    let lab = Lab::new();
    let (path, _) = lab.ends(&["key", "path"], 0);
    assert_eq!(path, format!("{}\n", lab.path("key").display()));
    for command in ["show", "export"] {
        let (stdout, stderr) = lab.ends(&["key", command], 1);
        assert!(stdout.is_empty() && stderr.contains("create one with `river key new`"), "{stderr}");
    }
    assert!(!lab.path("key").exists(), "nothing but `new` and `import` makes a key");

    let (made, _) = lab.ends(&["key", "new"], 0);
    assert_eq!(mode(&lab.path("key")), 0o600);
    let (fingerprint, _) = lab.ends(&["key", "show"], 0);
    assert!(made.contains(fingerprint.trim()), "{made}");
    let (exported, stderr) = lab.ends(&["key", "export"], 0);
    assert_eq!(exported, fs::read_to_string(lab.path("key")).unwrap());
    assert!(exported.trim().len() == 64 && !exported.contains(fingerprint.trim()));
    assert_eq!(stderr, "", "the warning is for people at a terminal");

    let (_, refused) = lab.ends(&["key", "new"], 1);
    assert!(refused.contains("--force") && refused.contains("no longer find"), "{refused}");
    assert_eq!(lab.ends(&["key", "export"], 0).0, exported);
    let (_, forced) = lab.ends(&["key", "new", "--force"], 0);
    assert!(forced.contains("restart them"), "{forced}");
    assert_ne!(lab.ends(&["key", "fingerprint"], 0).0, fingerprint);
    assert_eq!(mode(&lab.path("key")), 0o600);
    assert_eq!(fs::read_dir(lab.path("")).unwrap().count(), 4, "river, empty, tmp and key; no drafts");
}

#[test]
fn a_key_travels_from_one_machine_to_another() {
    let (one, two) = (Lab::new(), Lab::new());
    one.ends(&["key", "new"], 0);
    let (exported, _) = one.ends(&["key", "export"], 0);
    reads_and_ends(&mut two.river(&["key", "import"]), &exported, 0);
    assert_eq!(mode(&two.path("key")), 0o600);
    assert_eq!(one.ends(&["key", "show"], 0), two.ends(&["key", "show"], 0));
    reads_and_ends(&mut two.river(&["key", "import", "-"]), &exported, 0);

    let other = "ab".repeat(32);
    fs::write(two.path("other"), &other).unwrap();
    let other_path = two.path("other").display().to_string();
    let (_, refused) = two.ends(&["key", "import", &other_path], 1);
    assert!(refused.contains("was not changed") && refused.contains("--force"), "{refused}");
    assert_eq!(two.ends(&["key", "export"], 0).0, exported);
    two.ends(&["key", "import", &other_path, "--force"], 0);
    assert_eq!(two.ends(&["key", "export"], 0).0.trim(), other);
    assert_eq!(mode(&two.path("key")), 0o600);
}

#[test]
fn what_is_no_key_is_not_imported() {
    let lab = Lab::new();
    let long = "ab".repeat(4000);
    for input in ["", "\n", "hello", &long[..63], &long[..65], &long, &"zz".repeat(32)] {
        for force in [&[][..], &["--force"]] {
            let stderr = reads_and_ends(lab.river(&["key", "import"]).args(force), input, 1);
            assert!(stderr.contains("standard input contains no key (64 hexadecimal digits)"), "{stderr}");
        }
    }
    let (_, stderr) = lab.ends(&["key", "import", "/nowhere"], 1);
    assert!(stderr.contains("cannot read /nowhere"), "{stderr}");
    assert_eq!(fs::read_dir(lab.path("")).unwrap().count(), 3, "neither a key nor a draft");
}

#[test]
fn a_key_that_others_can_read_is_refused_and_can_be_replaced() {
    let lab = Lab::new();
    lab.ends(&["key", "new"], 0);
    fs::set_permissions(lab.path("key"), PermissionsExt::from_mode(0o644)).unwrap();
    for command in [&["key", "show"][..], &["key", "export"], &["ls"], &["vm"]] {
        let (_, stderr) = lab.ends(command, 1);
        assert!(stderr.contains("chmod 600"), "{stderr}");
    }
    lab.ends(&["key", "new"], 1);
    lab.ends(&["key", "new", "--force"], 0);
    assert_eq!(mode(&lab.path("key")), 0o600);
}

#[test]
fn who_has_another_key_sees_no_vms_and_stops_none() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let stranger = |args: &[&str]| {
        let mut command = lab.river(args);
        command.env("RIVER_KEY_FILE", lab.path("other"));
        command
    };
    ends(&mut stranger(&["key", "new"]), 0);
    let (found, _) = ends(&mut stranger(&["ls", "--json"]), 0);
    assert_eq!(found.trim(), "[]");
    let (_, stderr) = ends(&mut stranger(&["stop", "--all"]), 0);
    assert!(stderr.contains("nothing to stop"), "{stderr}");
    ends(&mut stranger(&["stop", "lab-0"]), 1);
    assert_eq!(lab.idle(), 2);
    let (exported, _) = lab.ends(&["key", "export"], 0);
    reads_and_ends(&mut stranger(&["key", "import", "--force"]), &exported, 0);
    let (found, _) = ends(&mut stranger(&["ls", "--json"]), 0);
    assert_eq!(found.matches("lab-").count(), 2);
}

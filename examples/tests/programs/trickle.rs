//! The examples of the paper and the slides, where they could go wrong.

use std::fs;

use crate::scene::Scene;

#[test]
fn there_is_no_factorial_that_does_not_fit() {
    let output = Scene::new().example("trickle_functions", ["--vms", "23"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(text.ends_with("19, 20] 2432902008176640000\n"), "{text}");
}

#[test]
fn what_the_slides_print() {
    let scene = Scene::new();
    for (name, args, said) in
        [("trickle_fork", &["--vms", "3"][..], "[10, 11, 12]\n4950\n"), ("rai_simple", &[], "6\n")]
    {
        let output = scene.example(name, args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.ends_with(said), "{output:?}");
    }
}

#[test]
fn words_of_hidden_files_are_counted_only_if_asked_for() {
    let scene = Scene::new();
    for (name, text) in [("shown", "one two"), (".hidden", "three")] {
        fs::create_dir_all(scene.path("files")).unwrap();
        fs::write(scene.path("files").join(name), text).unwrap();
    }
    for (pattern, said) in [("files/", "2 words"), ("files/.h", "1 words")] {
        let output = scene.example("trickle_wfreq", ["1", "1", pattern]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with(said), "{pattern}: {output:?}");
    }
    let output = scene.example("trickle_wfreq", ["0", "1", "files/"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("0 is not in 1.."), "{output:?}");
}

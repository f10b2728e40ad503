//! The MapReduce examples as a user runs them: their error messages.

use std::fs;
use std::path::{Path, PathBuf};

use crate::scene::Scene;

impl Scene {
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Returns the error output of an example that must fail; it must contain all of these parts, and no panic of the
    /// example itself.
    fn fails(&self, name: &str, args: &[&str], parts: &[&str]) {
        let output = self.example(name, args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let error = stderr.lines().find(|line| line.starts_with("error: "));
        let error = error.unwrap_or_else(|| panic!("no error in {stderr}"));
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {stderr}");
        }
        assert!(!stderr.contains("src/"), "{stderr}");
    }

    fn succeeds(&self, name: &str, args: &[&str]) -> (String, String) {
        let output = self.example(name, args).output().unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success(), "{stderr}");
        (stdout, stderr)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn input_that_is_not_there_is_named() {
    let scene = Scene::new();
    for (name, args) in [
        ("mr_wordcount", &["--vms", "1", "no/such/directory"][..]),
        ("mr_index", &["--vms", "1", "no/such/directory"]),
        ("mr_grep", &["--vms", "1", "x", "no/such/directory"]),
        ("mr_sort", &["--vms", "1", "sort", "no/such/directory", "out"]),
    ] {
        scene.fails(name, args, &["no input", "no/such/directory", "no file or directory"]);
        assert!(!scene.path("out").exists());
    }
    scene.fails("mr_wordcount", &["--vms", "1", "*.log"], &["no input", "*.log", "no pattern that matches"]);
    scene.fails("mr_kmeans", &["--vms", "1", "points"], &["points", "No such file"]);
    scene.fails("mr_sort", &["validate", "sorted"], &["sorted", "No such file"]);
}

#[test]
fn an_output_directory_with_something_in_it_is_left_alone() {
    let scene = Scene::new();
    let input = scene.write("words.txt", b"to be or not to be\n");
    let out = scene.path("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.tex"), "years of work").unwrap();
    for name in ["mr_wordcount", "mr_index"] {
        let args = ["--vms", "1", "--output", text(&out), text(&input)];
        scene.fails(name, &args, &[text(&out), "not empty", "name another one"]);
    }
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["thesis.tex"]);
    assert_eq!(fs::read_to_string(out.join("thesis.tex")).unwrap(), "years of work");
}

#[test]
fn a_corrupt_gzip_file_is_named_and_what_to_do_about_it() {
    let scene = Scene::new();
    let broken = scene.write("broken.gz", b"this is no gzip file");
    for (name, args) in [
        ("mr_wordcount", vec!["--vms", "2", text(&broken)]),
        ("mr_grep", vec!["--vms", "2", "x", text(&broken)]),
    ] {
        scene.fails(name, &args, &[text(&broken), "gzip", "is corrupt", "leave it out", "on VM "]);
    }
}

#[test]
fn records_that_are_none_are_named() {
    let scene = Scene::new();
    let records = scene.write("records", &[b'x'; 250]);
    let args = ["--vms", "1", "sort", text(&records), "out"];
    scene.fails("mr_sort", &args, &[text(&records), "250 bytes", "record length 100"]);
    let points = scene.write("points.txt", b"1 2\n3 4\nfive 6\n");
    let args = ["--vms", "1", "--clusters", "2", text(&points)];
    scene.fails("mr_kmeans", &args, &[text(&points), "line 3", "not two numbers", "five 6"]);
}

#[test]
fn a_memory_limit_that_cannot_be_kept_is_said_to_be_none() {
    let scene = Scene::new();
    let (_, stderr) = scene.succeeds("mr_sort", &["--vms", "2", "--memory", "5", "check", "20000"]);
    for part in
        ["a memory limit of 5.0 MiB cannot be kept", "2 VMs need at least 48.0 MiB", "raise the limit"]
    {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
    let (stdout, stderr) = scene.succeeds("mr_sort", &["--vms", "2", "--memory", "48", "check", "20000"]);
    assert!(!stderr.contains("cannot be kept"), "{stderr}");
    assert!(stdout.contains("sorted: true"), "{stdout}");
}

#[test]
fn who_reads_the_output_may_stop_early() {
    let scene = Scene::new();
    let lines = scene.write("lines.txt", b"a rose is a rose\n");
    let points = scene.write("points.txt", b"1 2\n3 4\n5 6\n");
    for (name, args) in [
        ("mr_grep", &["--vms", "1", "rose", text(&lines)][..]),
        ("mr_index", &["--vms", "1", text(&lines)]),
        ("mr_wordcount", &["--vms", "1", text(&lines)]),
        ("mr_kmeans", &["--vms", "1", "--clusters", "2", text(&points)]),
        ("mr_pagerank", &["--vms", "1", "--pages", "100"]),
    ] {
        scene.example_into_closed_pipe(name, args);
    }
}

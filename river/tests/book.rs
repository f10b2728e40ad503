//! Checks the book and README: every link leads somewhere, every chapter is listed, every error message that is explained
//! is one that River has, every option of a `river` command exists, and quoted parts of examples are in those examples.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files with this ending below a directory.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<PathBuf> {
    let mut pages = files(&root().join("docs"), "md");
    pages.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    pages
}

/// The blocks of code of a page: their language and their lines.
fn blocks(page: &str) -> Vec<(String, Vec<&str>)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, Vec<&str>)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some((language.to_owned(), Vec::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block of code has no end");
    blocks
}

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    let mut code = false;
    let lines = page.lines().filter(|line| {
        let fence = line.starts_with("```");
        code ^= fence;
        !code && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The targets of a page's links.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let ends = prose.match_indices("](").map(|(at, _)| &prose[at + 2..]);
    ends.filter_map(|rest| Some(rest[..rest.find(')')?].to_owned())).collect()
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page).lines().filter(|line| line.starts_with('#')).map(anchor).collect::<Vec<_>>();
    let mut anchors = BTreeSet::new();
    for heading in headings {
        let again = (1..).map(|n| format!("{heading}-{n}")).find(|name| !anchors.contains(name));
        anchors.insert(if anchors.contains(&heading) { again.unwrap() } else { heading });
    }
    anchors
}

fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut bad = Vec::new();
    for path in pages() {
        let page = read(&path);
        for link in links(&page) {
            if link.starts_with("http") {
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let there =
                target.exists() && (fragment.is_empty() || anchors(&read(&target)).contains(fragment));
            if !there {
                bad.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(bad.is_empty(), "links that lead nowhere:\n{}", bad.join("\n"));
}

#[test]
fn the_summary_lists_every_chapter_once() {
    let docs = root().join("docs");
    let listed = links(&read(&docs.join("SUMMARY.md")));
    let mut counts = BTreeMap::new();
    for chapter in &listed {
        *counts.entry(docs.join(chapter)).or_insert(0) += 1;
    }
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    for chapter in counts.keys() {
        assert!(chapter.exists(), "{} is listed, but is not there", chapter.display());
    }
    for page in files(&docs.join("guide"), "md") {
        assert!(counts.contains_key(&page), "{} is not listed in docs/SUMMARY.md", page.display());
    }
}

/// Pages with programs are the documentation of an item in a crate, which compiles and runs them; those of `from-python.md`
/// are parts of examples.
#[test]
fn every_program_is_compiled() {
    let sources = sources();
    for path in pages() {
        let page = read(&path);
        let programs: Vec<String> = blocks(&page)
            .into_iter()
            .map(|(language, _)| language)
            .filter(|l| l.starts_with("rust"))
            .collect();
        assert!(!programs.iter().any(|language| language.contains("ignore")), "{}", path.display());
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        if !programs.is_empty() && name != "docs/guide/from-python.md" && name != "docs/decisions.md" {
            assert!(sources.contains(&format!("../{name}\")]")), "no crate compiles {name}");
        }
    }
}

#[test]
fn what_is_quoted_of_examples_is_there() {
    let page = read(&root().join("docs/guide/from-python.md"));
    let mut example = None;
    let mut quoted = 0;
    let mut rest = &page[..];
    while let Some(at) = rest.find("```rust\n") {
        let (before, after) = rest.split_at(at);
        example = before
            .rmatch_indices("](../../examples/")
            .next()
            .and_then(|(at, link)| before[at + link.len()..].split(')').next())
            .or(example);
        let (fragment, after) = after["```rust\n".len()..].split_once("```").unwrap();
        let name = example.expect("a link to the example stands before its lines");
        let source: Vec<String> =
            read(&root().join("examples").join(name)).lines().map(|line| line.trim().to_owned()).collect();
        // Blank lines separate pieces, which occur in the example in this order.
        let mut from = 0;
        for piece in fragment.split("\n\n") {
            let lines: Vec<&str> = piece.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let found = source[from..].windows(lines.len()).position(|window| window == lines);
            from += found.unwrap_or_else(|| panic!("{name} does not have:\n{piece}")) + lines.len();
            quoted += 1;
        }
        rest = after;
    }
    assert!(quoted >= 20, "{quoted}");
}

/// The words that follow this option in the page's commands.
fn words_after<'a>(page: &'a str, option: &str) -> BTreeSet<&'a str> {
    let words: Vec<&str> = page.split_whitespace().collect();
    let after = words.windows(2).filter(|pair| pair[0].trim_start_matches('`') == option).map(|pair| pair[1]);
    after
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
        .filter(|word| *word != "NAME")
        .collect()
}

#[test]
fn every_command_is_there() {
    let root = root();
    let mut examples: BTreeSet<String> = BTreeSet::new();
    for source in files(&root.join("examples"), "rs") {
        let parent = source.parent().unwrap();
        let name = if source.ends_with("main.rs") { parent.file_name() } else { source.file_stem() };
        examples.insert(name.unwrap().to_string_lossy().into_owned());
    }
    let mut subcommands = BTreeSet::new();
    for path in pages() {
        let page = read(&path);
        let name = path.display();
        for example in words_after(&page, "--example") {
            assert!(examples.contains(example), "{name}: there is no example {example}");
        }
        for bench in words_after(&page, "--bench") {
            let source = root.join("benches/benches").join(bench).with_extension("rs");
            assert!(source.exists(), "{name}: there is no benchmark {bench}");
        }
        let blocks = blocks(&page);
        let commands = blocks.iter().filter(|(language, _)| language == "text").flat_map(|(_, lines)| lines);
        for line in commands.filter_map(|line| line.trim_start_matches("$ ").strip_prefix("river ")) {
            let word = line.split_whitespace().next().unwrap_or_default();
            subcommands.extend(word.chars().all(|c| c.is_ascii_lowercase()).then(|| word.to_owned()));
        }
    }
    assert!(subcommands.len() > 5, "{subcommands:?}");
    for subcommand in subcommands {
        let output = Command::new(env!("CARGO_BIN_EXE_river")).args(["help", &subcommand]).output().unwrap();
        assert!(output.status.success(), "there is no `river {subcommand}`");
    }
}

/// The `river` commands of a page, in blocks and in prose, as words; up to a comment, a pipe or a redirection.
fn river_commands(page: &str) -> Vec<Vec<String>> {
    let blocks = blocks(page);
    let lines =
        blocks.iter().filter(|(language, _)| language == "text").flat_map(|(_, lines)| lines.iter().copied());
    let prose = prose(page).replace('\n', " ");
    let spans = prose.split('`').skip(1).step_by(2);
    let of = |line: &str| {
        let line = line.split_once("$ ").map_or(line, |(_, command)| command);
        let end = [" #", "   ", "|", "&", ";", ">", "<", "'"].iter().filter_map(|end| line.find(end)).min();
        let words: Vec<String> =
            line[..end.unwrap_or(line.len())].split_whitespace().map(str::to_owned).collect();
        (words.len() > 1 && words[0] == "river").then(|| words[1..].to_vec())
    };
    lines
        .chain(spans)
        .filter_map(of)
        .filter(|words| words[0].chars().all(|c| c.is_ascii_lowercase()))
        .collect()
}

/// The options of a command, and whether each takes a value, according to its help.
fn options(command: &[String]) -> BTreeMap<String, bool> {
    let output = Command::new(env!("CARGO_BIN_EXE_river")).arg("help").args(command).output().unwrap();
    assert!(output.status.success(), "there is no `river {}`", command.join(" "));
    let help = String::from_utf8(output.stdout).unwrap();
    let mut options = BTreeMap::new();
    for line in help.lines().map(str::trim_start).filter(|line| line.starts_with('-')) {
        let names = line.split_whitespace().take_while(|word| word.starts_with('-'));
        let value = line.split_whitespace().find(|word| !word.starts_with('-'));
        for name in names {
            let name = name.trim_end_matches(',').trim_end_matches("...").to_owned();
            options.insert(name, value.is_some_and(|value| value.starts_with('<')));
        }
    }
    options
}

/// The options of these words that the command does not have. What follows a program is that program's.
fn unknown_options(words: &[String], options: &BTreeMap<String, bool>) -> Vec<String> {
    let runs_a_program = ["run", "trace", "record"].contains(&&*words[0]);
    let mut unknown = Vec::new();
    let mut words = words[1..].iter();
    while let Some(word) = words.next() {
        let name = word.split('=').next().unwrap_or_default();
        match options.get(name) {
            Some(true) if !word.contains('=') => drop(words.next()),
            Some(_) => {}
            None if name.starts_with('-') && name.len() > 1 => unknown.push(name.to_owned()),
            None if runs_a_program => break,
            None => {}
        }
    }
    unknown
}

#[test]
fn every_option_of_a_command_is_there() {
    let (mut bad, mut checked) = (Vec::new(), 0);
    for path in pages() {
        for words in river_commands(&read(&path)) {
            let nested = words[0] == "key" && words.get(1).is_some_and(|word| !word.starts_with('-'));
            let options = options(&words[..1 + usize::from(nested)]);
            checked += words.iter().filter(|word| word.starts_with('-')).count();
            let unknown = unknown_options(&words, &options);
            if !unknown.is_empty() {
                bad.push(format!("{}: river {}: {}", path.display(), words.join(" "), unknown.join(" ")));
            }
        }
    }
    assert!(bad.is_empty(), "options that do not exist:\n{}", bad.join("\n"));
    assert!(checked > 50, "{checked}");
}

#[test]
fn an_invented_option_would_be_found() {
    let page = "`river ls --nothing`\n```text\nada$ river run -n 4 --never x ./pi --more   --comment\n```";
    let unknown = |words: &Vec<String>| unknown_options(words, &options(&words[..1]));
    let found: Vec<Vec<String>> = river_commands(page).iter().map(unknown).collect();
    assert_eq!(found, [["--never"], ["--nothing"]]);
}

/// The sources of all crates.
fn sources() -> String {
    let crates = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path().join("src"));
    let crates = crates.filter(|source| source.is_dir());
    crates.flat_map(|source| files(&source, "rs")).map(|file| read(&file)).collect()
}

/// The strings in the sources, with `…` for placeholders.
fn sentences() -> String {
    let mut joined = String::new();
    for line in sources().lines() {
        joined.push_str(line.trim_start());
        // A string that continues on the next line.
        match joined.strip_suffix('\\') {
            Some(begun) => joined = begun.to_owned(),
            None => joined.push('\n'),
        }
    }
    let mut filled = String::new();
    let mut rest = &joined[..];
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        // A placeholder is short and has no blanks; everything else in braces is code.
        match after.split_once('}') {
            Some((name, after)) if name.len() < 30 && !name.contains([' ', '\n', '"', ';']) => {
                filled.push('…');
                rest = after;
            }
            _ => rest = after,
        }
    }
    filled + rest
}

#[test]
fn every_error_message_that_is_explained_exists() {
    let sentences = sentences();
    let page = read(&root().join("docs/guide/troubleshooting.md"));
    let mut count = 0;
    for heading in page.lines().filter_map(|line| line.strip_prefix("### ")) {
        let message = heading.trim_matches('`').trim();
        let ticks = (heading.len() - heading.trim_start_matches('`').len()).max(1);
        assert!(heading.ends_with(&"`".repeat(ticks)), "a heading is a message, all of it: {heading}");
        assert!(sentences.contains(message), "no source says: {message}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}

#[test]
fn an_invented_message_or_link_would_be_found() {
    assert!(!sentences().contains("the moon is in the way of …"));
    assert!(sentences().contains("UDP port … is taken by another program"));
    assert_eq!(links("see [a](b.md#c) and [d](e)\n```text\n[no](link)\n```"), ["b.md#c", "e"]);
    let found = anchors("# One two\n## Don't: `x`\n## One two\n");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["dont-x", "one-two", "one-two-1"]);
}

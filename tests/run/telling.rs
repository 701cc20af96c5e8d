//! Why something was refused: hints afterwards, and a trace.

use crate::{Place, texts};

#[test]
fn a_hint_names_the_path_the_rule_and_the_option() {
    let Some(place) = Place::new("a_hint_names_the_path_the_rule_and_the_option") else { return };
    let file = place.path("outside/file");
    std::fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    for level in ["1", "2"] {
        let output = place.run(&["--level", level], &["cat", file]);
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(1));
        assert!(err.contains("a guess") && err.contains(file) && err.contains("--ro "), "{err}");
    }
    // With that option it works, and nothing is said; nor when somebody wants to hear nothing.
    let output = place.run(&["--ro", file], &["cat", file]);
    assert_eq!((texts(&output), output.status.code()), (("x".into(), String::new()), Some(0)));
    let (_, err) = texts(&place.run(&["-q"], &["cat", file]));
    assert!(!err.contains("missiond: "), "{err}");
    // A failure that the policy has nothing to do with is not blamed on it.
    let (_, err) = texts(&place.run(&[], &["sh", "-c", "cat ./nosuch; exit 7"]));
    assert!(!err.contains("missiond: "), "{err}");
}

#[test]
fn a_program_outside_is_named() {
    let Some(place) = Place::new("a_program_outside_is_named") else { return };
    let program = place.path("outside/tool");
    std::fs::write(&program, "#!/bin/sh\necho works\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).unwrap();
    let program = program.to_str().unwrap();
    let output = place.run(&[], &[program]);
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(127));
    let option = format!("--ro {}", place.path("outside").display());
    assert!(err.contains(program) && err.contains(&option), "{err}");
    let outside = place.path("outside");
    let output = place.run(&["--ro", outside.to_str().unwrap()], &[program]);
    assert_eq!(texts(&output).0, "works\n");
}

#[test]
fn a_trace_shows_each_refusal_with_its_rule_and_nothing_else() {
    const NAME: &str = "a_trace_shows_each_refusal_with_its_rule_and_nothing_else";
    let Some(place) = Place::new(NAME) else { return };
    let file = place.path("outside/file");
    std::fs::write(&file, "x").unwrap();
    let script = format!(
        "cat {0}; cat nosuch; echo x >/usr/x; (unshare -U true); exec 3<>/dev/tcp/192.0.2.1/80; echo ran >made",
        file.display()
    );
    let output = place.run(&["--trace"], &["bash", "-c", &script]);
    let (_, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    assert_eq!(std::fs::read_to_string(place.path("ws/made")).unwrap(), "ran\n");
    let told = &err[err.find("missiond: ").unwrap_or_else(|| panic!("{err}"))..];
    for line in [
        format!("{}: ENOENT: not in the sandbox; --ro {}", file.display(), file.display()),
        "/usr/x: EROFS: /usr is read-only".into(),
        "unshare: EPERM: the system call unshare is filtered".into(),
        "connect 192.0.2.1:80: ENETUNREACH: there is no network; --net host".into(),
        "not seen: ".into(),
    ] {
        assert!(told.contains(&line), "no {line:?} in\n{told}");
    }
    assert!(!told.contains("nosuch"), "what isn't anywhere is no refusal\n{told}");
    // What was good is not in it, and the exit code passes.
    let output = place.run(&["--trace"], &["sh", "-c", "(exit 3); exit 8"]);
    assert_eq!(output.status.code(), Some(8));
    assert!(texts(&output).1.contains("the policy refused nothing"), "{}", texts(&output).1);
}

#[test]
fn a_trace_at_level_1_names_directories() {
    let Some(place) = Place::new("a_trace_at_level_1_names_directories") else { return };
    if crate::support::skip_without_landlock("a_trace_at_level_1_names_directories", 1) {
        return;
    }
    let file = place.path("outside/file");
    std::fs::write(&file, "x").unwrap();
    let output = place.run(&["--level", "1", "--trace"], &["cat", file.to_str().unwrap()]);
    let (_, err) = texts(&output);
    let outside = place.path("outside");
    let line = format!("EACCES: no directory of the policy grants it; --ro {}", outside.display());
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains(&line), "{err}");
}

#[test]
fn an_agents_refusals_are_told_with_the_line_of_its_section() {
    const NAME: &str = "an_agents_refusals_are_told_with_the_line_of_its_section";
    if Place::new(NAME).is_none() {
        return;
    }
    let bench = crate::mission::Bench::new(
        "until = \"stopped\"\nisolation = 2\n[agents.a]\nrole = \"write\"\nrestart = \"never\"\n\
         command = [\"sh\", \"-c\", \"cat ../secret; echo x >/usr/x; exit 3\"]\n",
    );
    std::fs::write(bench.path("secret"), "x").unwrap();
    let mut daemon = bench.start(&[]);
    daemon.line(&["a", "ended"]);
    let (code, out, err) = bench.ctl(&["why", "a"]);
    assert_eq!(code, 0, "{err}");
    let secret = bench.path("secret").canonicalize().unwrap();
    assert!(out.contains("rule: not in the sandbox"), "{out}{err}");
    assert!(out.contains(&format!("read = [{secret:?}]    to [agents.a]")), "{out}");
    assert!(out.contains("rule: /usr is read-only"), "{out}");
    let (_, json, _) = bench.ctl(&["-o", "jsonl", "why", "a"]);
    assert_eq!(json.lines().count(), 2, "{json}");
    assert_eq!(bench.ctl(&["why", "nobody"]).0, 3);
}

//! The other half of a sandbox: programs that people use work in it unchanged, with the preset
//! `coding`.

use std::path::{Path, PathBuf};

use crate::support::skip;
use crate::{Place, has, texts};

/// A workspace, if the host has all of these programs.
fn place(test: &str, programs: &[&str]) -> Option<Place> {
    for program in programs {
        if skip(test, program, has(program), &format!("there is no {program}")) {
            return None;
        }
    }
    Place::new(test)
}

#[test]
fn bash_runs_pipelines_jobs_and_here_documents() {
    let Some(place) = place("bash_runs_pipelines_jobs_and_here_documents", &["bash"]) else {
        return;
    };
    let out = place.sh(
        &[],
        "cat <<X | tr a-z A-Z\nhello\nX\nsleep 0 & wait $!; diff <(echo a) <(echo a); mkdir -p a/b; \
         cd a/b; pwd >../p; cat ../p; echo $((6 * 7))",
    );
    let inner = place.path("ws/a/b");
    assert_eq!(out, format!("HELLO\n{}\n42\n", inner.display()));
}

#[test]
fn git_commits_and_makes_worktrees() {
    let Some(place) = place("git_commits_and_makes_worktrees", &["git"]) else { return };
    let out = place.sh(
        &[],
        "git init -q repo; cd repo; git config user.email a@b; git config user.name n; echo one >f; \
         git add f; git commit -qm one; git worktree add -q ../tree -b other 2>/dev/null; cd ../tree; \
         echo two >>f; git commit -qam two; git rebase -q HEAD~1; git stash list; \
         git clone -q ../repo ../clone; git log --oneline | wc -l; git -C ../clone status --short",
    );
    assert_eq!(out, "2\n");
    // In a repository that was there before, whose hooks and configuration are protected.
    let repo = place.path("ws/repo");
    let mut run = place.command(
        &[],
        &[
            "bash",
            "-ec",
            "echo three >>f; git commit -qam three; git gc -q; git log --oneline | wc -l",
        ],
    );
    let output = run.current_dir(&repo).output().unwrap();
    let (out, err) = texts(&output);
    assert_eq!((out.as_str(), output.status.code()), ("2\n", Some(0)), "{err}");
    assert!(!repo.join(".git/commondir").exists(), "a placeholder stays");
}

#[test]
fn python_makes_an_environment_and_processes() {
    let Some(place) = place("python_makes_an_environment_and_processes", &["python3"]) else {
        return;
    };
    let out = place.sh(
        &[],
        "/usr/bin/python3 -m venv --without-pip v; . v/bin/activate; python - <<X\n\
         import multiprocessing, threading, tempfile, socket, sys\n\
         if __name__ == '__main__':\n\
         \x20   with multiprocessing.Pool(2) as pool: print(pool.map(abs, [-1, 2]))\n\
         \x20   t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n\
         \x20   tempfile.NamedTemporaryFile().write(b'x')\n\
         \x20   s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n\
         \x20   socket.create_connection(s.getsockname()).close()\n\
         \x20   print(sys.prefix != sys.base_prefix)\nX",
    );
    assert_eq!(out, "[1, 2]\nthread\nTrue\n");
}

#[test]
fn gcc_builds_a_program_with_threads() {
    let Some(place) = place("gcc_builds_a_program_with_threads", &["gcc"]) else { return };
    let source = "#include <pthread.h>\n#include <stdio.h>\n\
                  static void *f(void *p) { return p; }\n\
                  int main(void) { pthread_t t[8]; for (int i = 0; i < 8; i++) if (pthread_create(&t[i], 0, f, 0)) \
                  return 1; for (int i = 0; i < 8; i++) pthread_join(t[i], 0); puts(\"threads\"); }\n";
    std::fs::write(place.path("ws/t.c"), source).unwrap();
    assert_eq!(place.sh(&[], "gcc -O2 -pthread t.c -o t; ./t"), "threads\n");
}

#[test]
fn cargo_builds_and_tests_offline() {
    const NAME: &str = "cargo_builds_and_tests_offline";
    // The toolchain that builds this; where that is a proxy of rustup, the plain one.
    let sysroot = std::process::Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = sysroot.ok().filter(|output| output.status.success());
    let sysroot =
        sysroot.map(|output| PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()));
    let cargo =
        sysroot.as_ref().map(|sysroot| sysroot.join("bin/cargo")).filter(|cargo| cargo.is_file());
    if skip(NAME, "cargo", cargo.is_some() && has("cc"), "there is no cargo in PATH, or no linker")
    {
        return;
    }
    let Some(place) = Place::new(NAME) else { return };
    let sysroot = sysroot.unwrap();
    let script = format!(
        "export PATH={}/bin:$PATH; cargo new -q --vcs none demo; cd demo; cargo build -q --offline; \
         cat >>src/main.rs <<X\n#[test]\nfn adds() {{ assert_eq!(1 + 1, 2); }}\nX\n\
         cargo test -q --offline 2>&1 | grep -o '1 passed'; ./target/debug/demo",
        sysroot.display()
    );
    let inside = |dir: &str| sysroot.starts_with(dir);
    let given = sysroot.display().to_string();
    let options: &[&str] = if inside("/usr") || inside("/opt") { &[] } else { &["--ro", &given] };
    assert_eq!(place.sh(options, &script), "1 passed\nHello, world!\n");
}

#[test]
fn node_runs_and_npm_tests() {
    let Some(place) = place("node_runs_and_npm_tests", &["node", "npm"]) else { return };
    let package = r#"{"name":"x","version":"1.0.0","scripts":{"test":"node t.js"}}"#;
    std::fs::write(place.path("ws/package.json"), package).unwrap();
    let script = "const { Worker } = require('worker_threads'); require('http').createServer((q, r) => r.end('ok'))\
                  .listen(0, function () { require('http').get({ port: this.address().port }, (r) => { \
                  r.on('data', (d) => console.log(String(d))); r.on('end', () => process.exit()) }) })";
    std::fs::write(place.path("ws/t.js"), script).unwrap();
    assert_eq!(place.sh(&[], "npm test --silent 2>&1"), "ok\n");
}

#[test]
fn tar_packs_and_unpacks() {
    let Some(place) = place("tar_packs_and_unpacks", &["tar"]) else { return };
    let out = place.sh(
        &[],
        "mkdir -p d/e; echo x >d/e/f; ln -s f d/e/g; chmod 750 d/e/f; tar czf a.tgz d; rm -r d; tar xzf a.tgz; \
         stat -c '%a %N' d/e/f d/e/g",
    );
    assert_eq!(out, "750 'd/e/f'\n777 'd/e/g' -> 'f'\n");
}

#[test]
fn curl_is_refused_cleanly_and_told_why() {
    let Some(place) = place("curl_is_refused_cleanly_and_told_why", &["curl"]) else { return };
    let output = place.run(&[], &["curl", "-sS", "--max-time", "20", "http://192.0.2.1/"]);
    let (_, err) = texts(&output);
    // 7: failed to connect.
    assert_eq!(output.status.code(), Some(7), "{err}");
    assert!(err.contains("there is no network") && err.contains("--net host"), "{err}");
}

#[test]
fn a_debugger_traces_its_own_child_with_the_grant_and_only_so() {
    const NAME: &str = "a_debugger_traces_its_own_child_with_the_grant_and_only_so";
    let Some(place) = place(NAME, &["gdb"]) else { return };
    std::fs::write(place.path("ws/debug.toml"), "inherits = \"coding\"\ngrants = [\"ptrace\"]\n")
        .unwrap();
    let gdb = ["gdb", "-q", "-batch", "-nx", "-ex", "run", "--args", "/bin/echo", "traced"];
    let output = place.run(&["--policy", "./debug.toml"], &gdb);
    let (out, err) = texts(&output);
    assert!(out.contains("traced") && out.contains("exited normally"), "{out}\n{err}");
    let (out, err) = texts(&place.run(&[], &gdb));
    assert!(!out.contains("exited normally"), "{out}\n{err}");
    assert!(Path::new("/bin/echo").exists());
}

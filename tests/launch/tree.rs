//! What a level-2 agent sees of files, and what it can do to them.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use missiond::launch::{Exit, Report, Step};
use missiond::policy::sandbox::{Access, Node, Trust};

use crate::rig::{Rig, exit, text};
use crate::stage::{
    Bell, PART, as_root_of_a_host, bind, output, shell_with, skip_without_userns, spec, tree,
};
use crate::support::alone;

/// Mount points with their options, from the text of a mountinfo file (proc(5)).
fn mounts(mountinfo: &str) -> BTreeMap<PathBuf, Vec<String>> {
    let mount = |line: &str| {
        let mut fields = line.split(' ').skip(4);
        let point = PathBuf::from(fields.next().unwrap());
        let options = fields.next().unwrap().split(',').map(str::to_owned).collect();
        (point, options)
    };
    mountinfo.lines().map(mount).collect()
}

#[test]
fn there_is_what_was_planned_and_nothing_else() {
    const NAME: &str = "tree::there_is_what_was_planned_and_nothing_else";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let planned = tree(&mut rig);
        let mountinfo = output(&mut rig, "cat /proc/self/mountinfo");
        assert!(!mountinfo.contains("shared:") && !mountinfo.contains("master:"), "{mountinfo}");
        let found = mounts(&mountinfo);
        let has = |point: &Path, option: &str| found[point].iter().any(|o| o == option);
        assert!(has(Path::new("/"), "ro") && has(Path::new("/"), "nodev"));
        for node in &planned {
            let target = node.target();
            let (write, devices) = match node {
                Node::Bind { access, .. } => (*access != Access::Read, *access == Access::Device),
                Node::Tmpfs { writable, .. } => (*writable, false),
                Node::Devpts { .. } => (true, true),
                Node::Overlay { .. } | Node::Proc { .. } | Node::Pin { .. } => (true, false),
                Node::Protect { .. } | Node::Hide { .. } => (false, false),
                Node::Symlink { .. } | Node::Directory { .. } | Node::File { .. } => continue,
            };
            assert!(found.contains_key(target), "{} is missing", target.display());
            assert_eq!(has(target, "rw"), write, "{}", target.display());
            assert_eq!(has(target, "nodev"), !devices, "{}", target.display());
            assert!(has(target, "nosuid"), "{}", target.display());
        }
        let inside_of_planned = |point: &Path| {
            // What the host has mounted inside of a directory comes along with it.
            let binds = planned.iter().filter(|node| matches!(node, Node::Bind { .. }));
            binds.map(Node::target).any(|target| point.starts_with(target))
                && before.contains(&format!(" {} ", point.display()))
        };
        for point in found.keys() {
            let own = point == Path::new("/") || planned.iter().any(|node| node.target() == point);
            assert!(own || inside_of_planned(point), "{} was not planned", point.display());
        }
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    });
}

#[test]
fn only_what_is_writable_can_be_written() {
    const NAME: &str = "tree::only_what_is_writable_can_be_written";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        // Without Landlock, which would refuse first.
        let spec = shell_with(
            &mut rig,
            [],
            "for d in / /usr /etc /dev /run /var /proc /home /root; do
                [ -d $d ] && (echo x > $d/new-$$) 2>/dev/null && echo open $d
            done
            for d in \"$HOME\" . /tmp /dev/shm; do (echo x > $d/new) 2>/dev/null || echo shut $d; done
            chmod 777 / 2>/dev/null && echo chmod /
            echo done",
        );
        assert_eq!(text(&rig.run(&spec)), "done");
        assert_eq!(std::fs::read_to_string(rig.path("workspace").join("new")).unwrap(), "x\n");
        assert_eq!(std::fs::read_to_string(rig.path("home").join("new")).unwrap(), "x\n");
        assert!(!Path::new("/tmp/new").exists(), "its /tmp is its own");
    });
}

#[test]
fn what_is_not_in_the_plan_is_not_there() {
    const NAME: &str = "tree::what_is_not_in_the_plan_is_not_there";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        std::fs::write(rig.path("secret"), "x").unwrap();
        let secret = rig.path("secret").display().to_string();
        // Wherever the rig's own directories lie, the way to them is there.
        let home = rig.path("home");
        let places =
            ["/sys/kernel", "/root", "/home", "/boot", "/mnt", "/media", "/srv", "/../root"];
        let places = places.into_iter().filter(|place| !home.starts_with(place));
        let places = places.collect::<Vec<_>>().join(" ");
        let script = format!(
            "ln -s {secret} link
            for f in {secret} link {places}; do [ -e $f ] && echo there $f; done
            ls -A /tmp; echo done"
        );
        let way = home.strip_prefix("/tmp").ok().and_then(|below| below.components().next());
        let way = way.map(|top| format!("{}\n", top.as_os_str().display())).unwrap_or_default();
        assert_eq!(output(&mut rig, &script), format!("{way}done"));
    });
}

#[test]
fn hidden_places_are_empty_and_stay_so() {
    const NAME: &str = "tree::hidden_places_are_empty_and_stay_so";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let workspace = rig.path("workspace");
        std::fs::create_dir(workspace.join("dir")).unwrap();
        std::fs::write(workspace.join("dir/file"), "secret").unwrap();
        std::fs::write(workspace.join("file"), "secret").unwrap();
        let hidden = ["dir", "file"].map(|name| Node::Hide { target: workspace.join(name) });
        let spec = shell_with(
            &mut rig,
            hidden,
            "ls -A dir; cat file 2>/dev/null && echo open; chmod 644 file 2>/dev/null && echo chmod
            for c in 'echo x > dir/new' 'echo x > file' 'rm file' 'mv file g' 'rmdir dir' 'mv dir e' 'ln file h'
            do (eval \"$c\") 2>/dev/null && echo \"open: $c\"; done; ls -A / | grep blank; echo done",
        );
        assert_eq!(text(&rig.run(&spec)), "done");
        assert_eq!(std::fs::read_to_string(workspace.join("file")).unwrap(), "secret");
        assert_eq!(std::fs::read_dir(&workspace).unwrap().count(), 2);
    });
}

#[test]
fn protected_and_pinned_places_cannot_be_changed_or_moved_away() {
    const NAME: &str = "tree::protected_and_pinned_places_cannot_be_changed_or_moved_away";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let workspace = rig.path("workspace");
        std::fs::create_dir_all(workspace.join("a/git/hooks")).unwrap();
        std::fs::write(workspace.join("a/git/config"), "old").unwrap();
        let target = |name: &str| workspace.join(name);
        let nodes = [
            Node::Pin { target: target("a") },
            Node::Pin { target: target("a/git") },
            Node::Protect { target: target("a/git/hooks") },
            Node::Protect { target: target("a/git/config") },
        ];
        let errno = |call: &str, number: i32| {
            format!(
                "perl -e '$e = ({call}) ? 0 : 0+$!; print \"{call}: $e\\n\" if $e != {number}'\n"
            )
        };
        let script = [
            errno("rename q(a), q(b)", libc::EBUSY),
            errno("rename q(a/git), q(a/git2)", libc::EBUSY),
            errno("rename q(a/git/hooks), q(h)", libc::EXDEV),
            errno("rename q(a/git/config), q(c)", libc::EXDEV),
            errno("unlink q(a/git/config)", libc::EBUSY),
            errno("open F, q(>a/git/config)", libc::EROFS),
            errno("open F, q(>a/git/hooks/pre-commit)", libc::EROFS),
            errno("link q(a/git/config), q(l)", libc::EXDEV),
            errno("open F, q(>a/git/index)", 0),
            errno("mkdir q(a/x)", 0),
            "cat a/git/config".into(),
        ];
        let spec = shell_with(&mut rig, nodes, &script.concat());
        assert_eq!(text(&rig.run(&spec)), "old");
        assert!(target("a/git/index").exists() && target("a/x").is_dir());
    });
}

#[test]
fn its_own_files_links_and_directories_are_as_planned() {
    const NAME: &str = "tree::its_own_files_links_and_directories_are_as_planned";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let nodes = [
            Node::File { target: "/srv/deep/note".into(), text: "hello".into(), mode: 0o640 },
            Node::Directory { target: "/srv/box".into(), mode: 0o1775 },
            Node::Symlink { target: "/srv/link".into(), to: "deep/note".into() },
            Node::Tmpfs {
                target: "/srv/cover".into(),
                bytes: 1 << 20,
                inodes: 100,
                mode: 0o711,
                writable: false,
            },
            bind(rig.path("home"), Access::Read, Trust::None),
            Node::Bind {
                source: rig.path("home"),
                target: "/srv/cover/below/home".into(),
                access: Access::Write,
                trust: Trust::None,
            },
        ];
        let spec = shell_with(
            &mut rig,
            nodes,
            "cat /srv/link; echo; stat -c '%a %n' /srv /srv/deep/note /srv/box /srv/cover
            (echo x > /srv/cover/new) 2>/dev/null && echo open; echo x > /srv/cover/below/home/f && echo written
            (echo x > \"$HOME/g\") 2>/dev/null || echo shut",
        );
        let expected =
            "hello\n755 /srv\n640 /srv/deep/note\n1775 /srv/box\n711 /srv/cover\nwritten\nshut";
        assert_eq!(text(&rig.run(&spec)), expected);
        assert!(rig.path("home").join("f").exists());
    });
}

#[test]
fn a_private_tmp_ends_at_its_size() {
    const NAME: &str = "tree::a_private_tmp_ends_at_its_size";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let small = |target: &str| Node::Tmpfs {
            target: target.into(),
            bytes: 1 << 20,
            inodes: 10,
            mode: 0o1777,
            writable: true,
        };
        let spec = shell_with(
            &mut rig,
            [small("/big"), small("/many")],
            "head -c 3000000 /dev/zero 2>/dev/null > /big/f || echo full; stat -c %s /big/f
            for i in 1 2 3 4 5 6 7 8 9 10 11 12; do (: > /many/$i) 2>/dev/null || { echo full; break; }; done",
        );
        assert_eq!(text(&rig.run(&spec)), "full\n1048576\nfull");
    });
}

#[test]
fn nothing_is_made_on_the_host_for_a_mount() {
    const NAME: &str = "tree::nothing_is_made_on_the_host_for_a_mount";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let workspace = rig.path("workspace");
        let inside = workspace.join("made/here");
        let at_inside = |error: i32, detail: String| Exit::SetupFailed {
            step: Step::Mount,
            errno: error,
            detail,
        };
        let usr_inside = Node::Bind {
            source: "/usr".into(),
            target: inside.clone(),
            access: Access::Read,
            trust: Trust::System,
        };
        let shown = inside.display();
        for (node, detail) in [
            (usr_inside, format!("/usr at {shown}")),
            (Node::Directory { target: inside.clone(), mode: 0o755 }, shown.to_string()),
            (Node::Symlink { target: inside.clone(), to: "/".into() }, shown.to_string()),
            (
                Node::File { target: inside.clone(), text: "x".into(), mode: 0o644 },
                shown.to_string(),
            ),
            (Node::Pin { target: inside.clone() }, shown.to_string()),
            (Node::Proc { target: inside.clone() }, format!("proc at {shown}")),
        ] {
            let spec = shell_with(&mut rig, [node], "echo ran > ran");
            let mut handle = rig.start(&spec);
            assert_eq!(exit(&mut handle), at_inside(libc::ENOENT, detail));
        }
        // Through a link of the sandbox's own that leads to the host's.
        let nodes = [
            Node::Symlink { target: "/way".into(), to: workspace.clone() },
            Node::Directory { target: "/way/new".into(), mode: 0o755 },
        ];
        let spec = shell_with(&mut rig, nodes, "echo ran > ran");
        let mut handle = rig.start(&spec);
        assert_eq!(exit(&mut handle), at_inside(libc::ELOOP, "/way/new".into()));
        assert_eq!(std::fs::read_dir(&workspace).unwrap().count(), 0);
    });
}

#[test]
fn a_link_on_the_way_to_what_others_can_change_is_refused() {
    const NAME: &str = "tree::a_link_on_the_way_to_what_others_can_change_is_refused";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        std::fs::create_dir(rig.path("outside")).unwrap();
        symlink(rig.path("outside"), rig.path("link")).unwrap();
        symlink(rig.path("outside"), rig.path("workspace").join("link")).unwrap();
        let source = rig.path("link");
        let through = Node::Bind {
            source: source.clone(),
            target: "/mnt/x".into(),
            access: Access::Write,
            trust: Trust::None,
        };
        let target = rig.path("workspace").join("link");
        for (node, detail) in [
            (through, format!("{} at /mnt/x", source.display())),
            (Node::Protect { target: target.clone() }, target.display().to_string()),
            (Node::Hide { target: target.clone() }, target.display().to_string()),
        ] {
            let spec = shell_with(&mut rig, [node], "true");
            let mut handle = rig.start(&spec);
            let expected = Exit::SetupFailed { step: Step::Mount, errno: libc::ELOOP, detail };
            assert_eq!(exit(&mut handle), expected);
        }
        // What only root can change may be reached by links.
        let system = Node::Bind {
            source,
            target: "/mnt/x".into(),
            access: Access::Read,
            trust: Trust::System,
        };
        let spec = shell_with(&mut rig, [system], "ls -d /mnt/x");
        assert_eq!(text(&rig.run(&spec)), "/mnt/x");
    });
}

#[test]
fn a_source_swapped_for_a_link_during_the_start_never_leads_outside() {
    const NAME: &str = "tree::a_source_swapped_for_a_link_during_the_start_never_leads_outside";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        for (name, content) in [("outside", "outside"), ("shared", "inside")] {
            std::fs::create_dir(rig.path(name)).unwrap();
            std::fs::write(rig.path(name).join("which"), content).unwrap();
        }
        std::fs::create_dir(rig.path("workspace").join("d")).unwrap();
        std::fs::write(rig.path("workspace").join("d/which"), "inside").unwrap();
        let pairs = [
            (rig.path("shared"), rig.path("decoy")),
            (rig.path("workspace").join("d"), rig.path("workspace").join("decoy")),
        ];
        for (_, decoy) in &pairs {
            symlink(rig.path("outside"), decoy).unwrap();
        }
        let shared = rig.path("shared");
        let nodes = || {
            [
                Node::Bind {
                    source: shared.clone(),
                    target: "/mnt/x".into(),
                    access: Access::Write,
                    trust: Trust::None,
                },
                Node::Protect { target: pairs[1].0.clone() },
            ]
        };
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                while !over.load(Ordering::Relaxed) {
                    // The starts need the locks of these directories, too.
                    std::thread::yield_now();
                    for (real, decoy) in &pairs {
                        renameat_with(CWD, real, CWD, decoy, RenameFlags::EXCHANGE).unwrap();
                    }
                }
            });
            // Also when an assertion fails: the scope waits for its thread.
            let _end = Raised(&over);
            for _ in 0..24 {
                // The workspace's own link leads nowhere inside, whichever way it stands.
                let script = "cat /mnt/x/which; cat d/which decoy/which 2>/dev/null";
                let spec = shell_with(&mut rig, nodes(), script);
                let mut handle = rig.start(&spec);
                let (mut out, mut detached) = (String::new(), false);
                while let Some(report) = crate::rig::next(&mut handle) {
                    match report {
                        Report::Ended(end) => out = text(&end),
                        Report::Detached { .. } => detached = true,
                        Report::Forked { .. } | Report::Started { .. } => {}
                        Report::SetupFailed { .. } => {}
                        Report::Parked { .. } | Report::Unkillable { .. } => {
                            unreachable!("{report:?}")
                        }
                    }
                }
                assert!(!out.contains("outside"), "{out}");
                match handle.exit().unwrap() {
                    Exit::SetupFailed { step, errno, .. } => {
                        assert_eq!((step, errno), (Step::Mount, libc::ELOOP));
                    }
                    Exit::Exited(_) => assert!(out.starts_with("inside"), "{out}"),
                    // The protected place was seen to be elsewhere.
                    Exit::Signaled(libc::SIGKILL) => assert!(detached),
                    Exit::Signaled(_) | Exit::OutOfMemory | Exit::Lost => unreachable!(),
                }
            }
        });
    });
}

/// Set when it goes out of scope.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_mount_of_the_host_after_the_start_is_not_seen_inside() {
    const NAME: &str = "tree::a_mount_of_the_host_after_the_start_is_not_seen_inside";
    alone(NAME, || {
        if std::env::var_os(PART).is_none() && skip_without_userns(NAME) {
            return;
        }
        as_root_of_a_host(NAME, "mount --make-rshared /", || {
            let mut rig = Rig::new();
            let workspace = rig.path("workspace");
            std::fs::create_dir(workspace.join("m")).unwrap();
            let mut bell = Bell::new(&rig);
            let fifo = workspace.join("go");
            nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
            let script = "echo > bell; read x < go; ls -A m; grep -c shared: /proc/self/mountinfo; echo done";
            let spec = shell_with(&mut rig, [], script);
            let mut handle = rig.start(&spec);
            bell.rung();
            let mounted = std::process::Command::new("mount")
                .args(["-t", "tmpfs", "none"])
                .arg(workspace.join("m"))
                .status()
                .unwrap();
            assert!(mounted.success());
            std::fs::write(workspace.join("m/visible"), "").unwrap();
            std::fs::write(&fifo, "go\n").unwrap();
            assert_eq!(text(&crate::rig::ended(&mut handle)), "0\ndone");
        });
    });
}

#[test]
fn a_device_must_be_one() {
    const NAME: &str = "tree::a_device_must_be_one";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let file = rig.path("file");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
        let node = bind(file.clone(), Access::Device, Trust::System);
        let spec = shell_with(&mut rig, [node], "true");
        let mut handle = rig.start(&spec);
        let detail = file.display().to_string();
        let expected = Exit::SetupFailed { step: Step::Mount, errno: libc::ENODEV, detail };
        assert_eq!(exit(&mut handle), expected);
        let spec = spec_true(&mut rig);
        assert_eq!(text(&rig.run(&spec)), "0 0");
    });
}

/// The devices that every agent has: one to write away, one to read.
fn spec_true(rig: &mut Rig) -> missiond::launch::LaunchSpec {
    spec(
        rig,
        &["sh", "-c", "echo x > /dev/null; a=$?; head -c 1 /dev/urandom > /dev/null; echo $a $?"],
    )
}

//! A child is never stronger than its parent, whatever it asks for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;

use crate::policy::Level;
use crate::policy::restrict::{
    Ask, Budget, Ceilings, ChildRequest, Excess, Lattice, Methods, Names, PathBits, Paths,
    PermissionSet, Ports, Reach, Rights, Row, restrict,
};

fn number() -> impl Strategy<Value = Option<u64>> {
    proptest::option::of(0_u64..5)
}

fn names(of: &'static [&'static str]) -> impl Strategy<Value = BTreeSet<String>> {
    prop::sample::subsequence(of, 0..=of.len())
        .prop_map(|names| names.into_iter().map(str::to_owned).collect())
}

fn paths() -> impl Strategy<Value = Paths> {
    let path = prop::sample::select(vec!["/a", "/a/b", "/a/b/c", "/a/d", "/e", "/e/f"]);
    let bits = (any::<bool>(), any::<bool>()).prop_map(|(read, write)| PathBits { read, write });
    let granted = proptest::collection::vec((path.prop_map(PathBuf::from), bits), 0..4);
    (granted, names(&["*.key", "/a/**"])).prop_map(|(granted, denied)| Paths::new(granted, denied))
}

fn reach() -> impl Strategy<Value = Reach> {
    let name = prop::sample::select(vec!["a.b", "x.a.b", "*.a.b", "*.b", "c", "*.x.a.b"]);
    let ports = prop_oneof![
        Just(Ports::All),
        prop::sample::subsequence(vec![80_u16, 443], 0..=2)
            .prop_map(|ports| Ports::Some(ports.into_iter().collect())),
    ];
    prop_oneof![
        Just(Reach::None),
        Just(Reach::Host),
        proptest::collection::vec((name.prop_map(str::to_owned), ports), 0..4)
            .prop_map(Reach::list),
    ]
}

fn ceilings() -> impl Strategy<Value = Ceilings> {
    (number(), number(), number()).prop_map(|(memory, pids, deadline_ms)| Ceilings {
        memory,
        pids,
        deadline_ms,
        ..Ceilings::default()
    })
}

fn budget() -> impl Strategy<Value = Budget> {
    (number(), number(), number()).prop_map(|(slots, memory, depth)| Budget {
        slots,
        memory,
        depth,
        ..Budget::default()
    })
}

fn methods() -> impl Strategy<Value = Methods> {
    let some = || names(&["publish", "task.create", "agent.spawn"]);
    (proptest::option::of(some()), some()).prop_map(|(allowed, denied)| Methods { allowed, denied })
}

fn level() -> impl Strategy<Value = Level> {
    (0_u8..4).prop_map(|number| Level::from_number(number).unwrap())
}

prop_compose! {
    fn rights()(
        permissions in 0_u16..64,
        grantable in 0_u16..64,
        level in level(),
        paths in paths(),
        network in reach(),
        limits in ceilings(),
        budget in budget(),
        methods in methods(),
        (images, secrets, environment, pools) in
            (names(&["i", "j"]), names(&["s", "t"]), names(&["A", "B"]), names(&["p"])),
        inline_command: bool,
    ) -> Rights {
        Rights {
            permissions: PermissionSet(permissions),
            grantable: PermissionSet(grantable & permissions),
            level,
            images: Names(images),
            paths,
            network,
            limits,
            budget,
            methods,
            secrets: Names(secrets),
            environment: Names(environment),
            pools: Names(pools),
            inline_command,
        }
    }
}

fn ask<T: std::fmt::Debug + Clone + 'static>(
    of: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Ask<T>> {
    of.prop_flat_map(|value| {
        prop_oneof![
            Just(Ask::Inherit),
            Just(Ask::Default(value.clone())),
            Just(Ask::Explicit(value)),
        ]
    })
}

prop_compose! {
    fn request()(
        permissions in ask((0_u16..64).prop_map(PermissionSet)),
        grantable in ask((0_u16..64).prop_map(PermissionSet)),
        level in ask(level()),
        paths in ask(paths()),
        network in ask(reach()),
        limits in ask(ceilings()),
        budget in ask(budget()),
        methods in ask(methods()),
        (images, secrets, environment, pools) in (
            ask(names(&["i", "j"]).prop_map(Names)),
            ask(names(&["s", "t"]).prop_map(Names)),
            ask(names(&["A", "B"]).prop_map(Names)),
            ask(names(&["p"]).prop_map(Names)),
        ),
        inline_command in ask(any::<bool>()),
        brings_command in prop::bool::weighted(0.2),
    ) -> ChildRequest {
        ChildRequest {
            permissions, grantable, level, images, paths, network, limits, budget, methods,
            secrets, environment, pools, inline_command, brings_command,
        }
    }
}

/// A request that asks for exactly these rights.
fn explicitly(rights: &Rights) -> ChildRequest {
    ChildRequest {
        permissions: Ask::Explicit(rights.permissions),
        grantable: Ask::Explicit(rights.grantable),
        level: Ask::Explicit(rights.level),
        images: Ask::Explicit(rights.images.clone()),
        paths: Ask::Explicit(rights.paths.clone()),
        network: Ask::Explicit(rights.network.clone()),
        limits: Ask::Explicit(rights.limits),
        budget: Ask::Explicit(rights.budget),
        methods: Ask::Explicit(rights.methods.clone()),
        secrets: Ask::Explicit(rights.secrets.clone()),
        environment: Ask::Explicit(rights.environment.clone()),
        pools: Ask::Explicit(rights.pools.clone()),
        inline_command: Ask::Explicit(rights.inline_command),
        brings_command: false,
    }
}

/// The same with every wish as a default.
fn by_default(rights: &Rights) -> ChildRequest {
    ChildRequest {
        permissions: Ask::Default(rights.permissions),
        grantable: Ask::Default(rights.grantable),
        level: Ask::Default(rights.level),
        images: Ask::Default(rights.images.clone()),
        paths: Ask::Default(rights.paths.clone()),
        network: Ask::Default(rights.network.clone()),
        limits: Ask::Default(rights.limits),
        budget: Ask::Default(rights.budget),
        methods: Ask::Default(rights.methods.clone()),
        secrets: Ask::Default(rights.secrets.clone()),
        environment: Ask::Default(rights.environment.clone()),
        pools: Ask::Default(rights.pools.clone()),
        inline_command: Ask::Default(rights.inline_command),
        brings_command: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_child_never_has_more_than_its_parent(parent in rights(), request in request(), reserved in budget()) {
        if let Ok(child) = restrict(&parent, &reserved, &request) {
            prop_assert!(child.within(&parent), "{child:?}\nis not within\n{parent:?}");
            prop_assert!(child.grantable.within(&child.permissions));
            let left = parent.budget.less(&reserved).unwrap();
            prop_assert!(child.budget.within(&left));
        }
    }

    #[test]
    fn what_is_allowed_once_is_allowed_again(parent in rights(), request in request()) {
        let nothing = Budget::default();
        if let Ok(child) = restrict(&parent, &nothing, &request) {
            // A child that asks for the same once more gets the same.
            let again = restrict(&parent, &nothing, &explicitly(&child));
            prop_assert_eq!(again, Ok(child.clone()));
            // And one of its own that asks for nothing has what it may give on.
            let grandchild = restrict(&child, &nothing, &ChildRequest::default()).unwrap();
            let expected = Rights { permissions: child.grantable, ..child };
            prop_assert_eq!(grandchild, expected);
        }
    }

    #[test]
    fn a_default_is_lowered_to_the_meet(parent in rights(), wish in rights()) {
        let child = restrict(&parent, &Budget::default(), &by_default(&wish)).unwrap();
        let meet = wish.meet(&parent);
        let permissions = wish.permissions.meet(&parent.grantable);
        let expected = Rights {
            permissions,
            grantable: wish.grantable.meet(&parent.grantable).meet(&permissions),
            ..meet
        };
        prop_assert_eq!(child, expected);
    }

    #[test]
    fn an_explicit_excess_is_refused_and_names_a_row_where_it_is_one(parent in rights(), wish in rights()) {
        // Without what only the parent's grantable decides.
        let wish = Rights { permissions: wish.permissions.meet(&parent.grantable), ..wish };
        let wish = Rights { grantable: wish.grantable.meet(&wish.permissions), ..wish };
        let answer = restrict(&parent, &Budget::default(), &explicitly(&wish));
        prop_assert_eq!(answer.is_ok(), wish.within(&parent));
        if let Err(Excess { row }) = answer {
            let is_one = match row {
                Row::Level => !wish.level.within(&parent.level),
                Row::Paths => !wish.paths.within(&parent.paths),
                Row::Network => !wish.network.within(&parent.network),
                Row::Limits => !wish.limits.within(&parent.limits),
                Row::Budget => !wish.budget.within(&parent.budget),
                Row::Methods => !wish.methods.within(&parent.methods),
                Row::Secrets => !wish.secrets.within(&parent.secrets),
                Row::Environment => !wish.environment.within(&parent.environment),
                Row::Pools => !wish.pools.within(&parent.pools),
                Row::Image => !wish.images.within(&parent.images),
                Row::InlineCommand => wish.inline_command && !parent.inline_command,
                Row::Role | Row::Grantable => false,
            };
            prop_assert!(is_one, "{row}");
        }
    }

    #[test]
    fn meets_do_not_depend_on_the_order(a in rights(), b in rights(), c in rights()) {
        prop_assert_eq!(a.meet(&b), b.meet(&a));
        prop_assert_eq!(a.meet(&b).meet(&c), a.meet(&b.meet(&c)));
        prop_assert_eq!(a.meet(&a), a.clone());
        prop_assert!(a.meet(&b).within(&a) && a.meet(&b).within(&b));
        // The largest: whatever is within both is within their meet.
        if c.within(&a) && c.within(&b) {
            prop_assert!(c.within(&a.meet(&b)));
        }
        prop_assert_eq!(a.within(&b), a.meet(&b) == a);
    }

    #[test]
    fn what_siblings_reserve_is_gone(
        all in 0_u64..10,
        reserved in proptest::collection::vec(0_u64..5, 0..5),
        asked in 0_u64..10,
    ) {
        let parent = Rights { budget: Budget { memory: Some(all), ..Budget::default() }, ..open() };
        let one = |memory| Budget { memory: Some(memory), ..Budget::default() };
        let sum = reserved.iter().fold(Budget::default(), |sum, memory| sum.plus(&one(*memory)));
        let request = ChildRequest { budget: Ask::Explicit(one(asked)), ..ChildRequest::default() };
        let fits = reserved.iter().sum::<u64>() + asked <= all;
        let answer = restrict(&parent, &sum, &request);
        prop_assert_eq!(answer.is_ok(), fits);
    }
}

/// Everything.
fn open() -> Rights {
    Rights {
        permissions: PermissionSet(63),
        grantable: PermissionSet(63),
        level: Level::None,
        images: Names::default(),
        paths: Paths::new([("/".into(), PathBits { read: true, write: true })], []),
        network: Reach::Host,
        limits: Ceilings::default(),
        budget: Budget::default(),
        methods: Methods::default(),
        secrets: Names::default(),
        environment: Names(["PATH".to_owned()].into()),
        pools: Names::default(),
        inline_command: true,
    }
}

fn refused(parent: &Rights, request: ChildRequest) -> Row {
    restrict(parent, &Budget::default(), &request).unwrap_err().row
}

#[test]
fn a_role_is_its_permissions_and_only_what_may_be_given_on_is_given() {
    let parent = Rights { grantable: PermissionSet(0b011), ..open() };
    let wish = |bits| ChildRequest {
        permissions: Ask::Explicit(PermissionSet(bits)),
        ..ChildRequest::default()
    };
    assert_eq!(refused(&parent, wish(0b111)), Row::Role, "it has it, but may not give it on");
    assert!(restrict(&parent, &Budget::default(), &wish(0b001)).is_ok());
}

#[test]
fn a_lower_level_is_more() {
    let parent = Rights { level: Level::Namespaces, ..open() };
    let wish = |level| ChildRequest { level: Ask::Explicit(level), ..ChildRequest::default() };
    assert_eq!(refused(&parent, wish(Level::Process)), Row::Level);
    assert!(restrict(&parent, &Budget::default(), &wish(Level::Container)).is_ok());
}

#[test]
fn a_path_beside_a_prefix_is_not_below_it() {
    let bits = PathBits { read: true, write: false };
    let parent = Rights { paths: Paths::new([("/a/b".into(), bits)], []), ..open() };
    let wish = |path: &str| ChildRequest {
        paths: Ask::Explicit(Paths::new([(path.into(), bits)], [])),
        ..ChildRequest::default()
    };
    assert_eq!(refused(&parent, wish("/a/bc")), Row::Paths);
    assert_eq!(refused(&parent, wish("/a")), Row::Paths);
    assert!(restrict(&parent, &Budget::default(), &wish("/a/b/c")).is_ok());
}

#[test]
fn a_pattern_of_names_stands_for_what_is_below_it_only() {
    let list = |name: &str| Reach::list([(name.to_owned(), Ports::All)]);
    assert!(list("x.a.b").within(&list("*.a.b")) && list("*.x.a.b").within(&list("*.a.b")));
    assert!(!list("a.b").within(&list("*.a.b")) && !list("xa.b").within(&list("*.a.b")));
    assert!(list("A.b").within(&list("a.B")), "names have no case");
    assert_eq!(Reach::list([("a".to_owned(), Ports::Some(BTreeSet::new()))]), Reach::None);
}

#[test]
fn nobody_gives_a_mission_variable_or_brings_a_command_without_the_permission() {
    let names = Names(["MISSION_ROLE".to_owned()].into());
    let wish = ChildRequest { environment: Ask::Default(names.clone()), ..ChildRequest::default() };
    let parent = Rights { environment: names, ..open() };
    assert_eq!(refused(&parent, wish), Row::Environment);
    let parent = Rights { inline_command: false, ..open() };
    let wish = ChildRequest { brings_command: true, ..ChildRequest::default() };
    assert_eq!(refused(&parent, wish), Row::InlineCommand);
}

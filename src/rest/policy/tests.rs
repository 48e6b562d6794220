use proptest::prelude::*;

use super::tree::{Binary, Function, Name, Place, Query, Source, Table, Type};
use super::*;

fn parsed(text: &str) -> Result<Arc<Policies>> {
    Policies::parse(vec![("policies/a.sql".to_owned(), text.to_owned())])
}

/// The message and the hint.
fn refused(text: &str) -> String {
    parsed(text).expect_err(text).to_string()
}

/// A condition alone.
fn condition(text: &str, functions: &[Arc<Function>]) -> Result<Expr, Fault> {
    let mut parser = parse::Parser::new(text, (0, text.len()), &super::vocabulary::RESERVED, functions)?;
    let expr = parser.truth()?;
    parser.end()?;
    Ok(expr)
}

#[test]
fn a_file_is_read_as_it_is_written_for_postgresql() {
    let policies = parsed(
        r#"
        ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
        CREATE OR REPLACE FUNCTION public.is_member(project integer) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
        SET search_path = '' AS $$ SELECT EXISTS (SELECT 1 FROM members m WHERE m.project_id = project AND m.user_id = auth.uid()); $$;
        CREATE POLICY "Members see tasks" ON public.tasks AS PERMISSIVE FOR SELECT TO authenticated, anon USING (is_member(project_id));
        CREATE POLICY adults ON tasks AS RESTRICTIVE USING ((auth.jwt() -> 'app' ->> 'age')::int >= 18) WITH CHECK (NOT locked);
        CREATE POLICY add ON tasks FOR INSERT TO authenticated WITH CHECK ((SELECT auth.uid()) = owner);
        GRANT SELECT (id, name), UPDATE (name) ON TABLE tasks TO authenticated;
        -- the end
        "#,
    )
    .unwrap();
    assert_eq!(policies.len(), (3, 2));
    assert_eq!(policies.roles, ["authenticated", "anon"]);
    let using = policies.policies[1].using.as_ref().unwrap();
    assert_eq!(using.text(), "CAST(auth.jwt() -> 'app' ->> 'age' AS INTEGER) >= 18");
}

#[test]
fn what_is_wrong_is_refused_with_its_place_and_a_next_step() {
    for (text, wanted) in [
        ("CREATE POLICY p ON t USING (a = 1", "a.sql:1:34: the end where \")\" is expected"),
        ("CREATE POLICY p ON t\n USIN (a = 1)", "a.sql:2:2: \"USIN\" where USING"),
        ("CREATE POLICY p ON t FOR INSERT USING (true)", "a policy FOR INSERT has no USING"),
        ("CREATE POLICY p ON t FOR SELECT WITH CHECK (true)", "no WITH CHECK"),
        ("CREATE POLICY p ON t TO service USING (true)", "the role service needs no policy"),
        ("CREATE POLICY p ON other.t USING (true)", "there is no schema \"other\""),
        ("CREATE POLICY p ON t USING (true); CREATE POLICY p ON T USING (true)", "a.sql:1:36: there is a policy \"p\" on T already"),
        ("CREATE POLICY p ON t USING (randomblob(9) = 1)", "a.sql:1:29: the function randomblob() is not allowed"),
        ("CREATE POLICY p ON t USING (abs(a) = 1)", "the function abs() is not allowed"),
        ("CREATE POLICY p ON t USING (count(a) = 1)", "count() stands alone"),
        ("CREATE POLICY p ON t USING (auth.email() = 'x')", "There are auth.uid(), auth.role() and auth.jwt()"),
        ("CREATE POLICY p ON t USING (a LIKE b)", "a pattern is a text"),
        ("CREATE POLICY p ON t USING (auth.jwt() ->> 'admin')", "neither true nor false"),
        ("CREATE POLICY p ON t USING (NOT (doc ->> 'hidden'))", "neither true nor false"),
        ("CREATE POLICY p ON t USING (doc ->> 'n' > 5)", "a text is compared with what is none"),
        ("CREATE POLICY p ON t USING (doc ->> 'n' IS TRUE)", "a text is compared with what is none"),
        ("CREATE POLICY p ON t USING (a = 'x''y)", "a.sql:1:33: this does not end"),
        ("CREATE POLICY p ON t USING (a = ?1)", "\"?\" where a value is expected"),
        ("DROP POLICY p ON t", "change the statement itself"),
        ("GRANT DELETE (a) ON t TO anon", "DELETE is granted on whole rows"),
        ("CREATE POLICY p ON m USING (id IN (SELECT id FROM m))", "the policies of m → m ask for themselves"),
        ("CREATE POLICY p ON a USING (id IN (SELECT id FROM b)); CREATE POLICY q ON b USING (EXISTS (SELECT 1 FROM a))", "a → b → a"),
    ] {
        let said = refused(text);
        assert!(said.contains(wanted), "{text}: {said}");
    }
}

#[test]
fn a_circle_of_policies_is_one_of_a_single_role() {
    let circle = |first: &str, second: &str| {
        parsed(&format!(
            "CREATE POLICY p ON a TO {first} USING (id IN (SELECT id FROM b)); CREATE POLICY q ON b TO {second} USING (EXISTS (SELECT 1 FROM a))"
        ))
    };
    assert!(circle("x", "y").is_ok());
    assert!(circle("x", "x").is_err() && circle("x", "public").is_err());
    let through =
        "CREATE FUNCTION f() RETURNS boolean SECURITY DEFINER AS $$ SELECT EXISTS (SELECT 1 FROM a) $$; CREATE POLICY p ON a USING (f())";
    assert!(parsed(through).is_ok());
    assert!(parsed(&through.replace("SECURITY DEFINER", "SECURITY INVOKER")).is_err());
}

#[test]
fn claims_are_asked_as_postgresql_asks_them() {
    use rusqlite::types::Value;
    let payload = r#"{"sub":"u","n":5,"t":true,"z":null,"a":["x",{"b":"c"}],"s":"text"}"#;
    let asked = |text: &str| {
        let Expr::Auth(auth) = condition(&format!("{text} = ''"), &[]).map(left).unwrap() else { panic!("{text}") };
        auth.of("u", "authenticated", payload, false)
    };
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(asked("auth.uid()"), text("u"));
    assert_eq!(asked("auth.jwt() ->> 'n'"), text("5"));
    assert_eq!(asked("auth.jwt() ->> 't'"), text("true"));
    assert_eq!(asked("auth.jwt() -> 's'"), text("\"text\""));
    assert_eq!(asked("auth.jwt() -> 'a' -> 1 ->> 'b'"), text("c"));
    assert_eq!(asked("auth.jwt() ->> 'z'"), Value::Null);
    assert_eq!(asked("auth.jwt() ->> 'nothing'"), Value::Null);
    assert_eq!(Auth::Uid.of("key", "anon", payload, true), Value::Null);
}

fn left(expr: Expr) -> Expr {
    match expr {
        Expr::Binary(_, left, _) => *left,
        other => other,
    }
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["id", "owner", "a b", "it\"s", "select", "Ünï"]).prop_map(str::to_owned)
}

fn leaf() -> impl Strategy<Value = Expr> {
    prop_oneof![
        Just(Expr::Null),
        any::<bool>().prop_map(Expr::Bool),
        (0..i64::MAX).prop_map(Expr::Integer),
        (0.0_f64..1e300).prop_map(Expr::Real),
        "[a'\"é\n-]{0,5}".prop_map(Expr::Text),
        Just(Expr::Clock("CURRENT_DATE")),
        (prop::option::of(name()), name()).prop_map(|(table, column)| Expr::Column(Name { table, column, at: Place(0) })),
        Just(Expr::Auth(Auth::Uid)),
        Just(Expr::Auth(Auth::Role)),
        (prop::collection::vec(step(), 0..3), any::<bool>())
            .prop_map(|(path, as_text)| Expr::Auth(Auth::Jwt { as_text: as_text && !path.is_empty(), path })),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof!["[a'$.]{0,4}".prop_map(Step::Key), (0..9_i64).prop_map(Step::Index)]
}

fn tree() -> impl Strategy<Value = Expr> {
    leaf().prop_recursive(4, 40, 4, |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        let truth = inner.clone().prop_filter("text is no condition", |expr| !expr.is_text());
        let binary = prop::sample::select(vec![
            Binary::Or,
            Binary::And,
            Binary::Equal,
            Binary::Unequal,
            Binary::Is,
            Binary::IsNot,
            Binary::Less,
            Binary::MoreOrEqual,
            Binary::BitAnd,
            Binary::Plus,
            Binary::Minus,
            Binary::Times,
            Binary::Divide,
            Binary::Remainder,
            Binary::Concat,
        ]);
        let query = (
            inner.clone(),
            prop::collection::vec((name(), prop::option::of(name()), prop::option::of(truth.clone())), 0..3),
            prop::option::of(truth.clone()),
        )
            .prop_map(|(column, from, condition)| Query {
                column,
                from: from
                    .into_iter()
                    .enumerate()
                    .map(|(at, (table, alias, on))| Source { table: Table::Named(table, Place(0)), alias, on: on.filter(|_| at > 0) })
                    .collect(),
                condition,
            })
            .prop_map(Box::new)
            .boxed();
        prop_oneof![
            truth.clone().prop_map(|one| Expr::Not(Box::new(one))),
            boxed.clone().prop_map(Expr::Minus),
            (binary, inner.clone(), inner.clone())
                .prop_filter("only what is read", |(binary, left, right)| {
                    let text = left.is_text() || right.is_text();
                    !text || *binary == Binary::Concat
                })
                .prop_map(|(binary, left, right)| Expr::Binary(binary, Box::new(left), Box::new(right))),
            (any::<bool>(), boxed.clone(), "[a%']{0,4}").prop_map(|(glob, value, pattern)| Expr::Like { glob, value, pattern }),
            (boxed.clone(), prop::collection::vec(inner.clone(), 1..3)).prop_map(|(value, list)| Expr::In(value, list)),
            (boxed.clone(), query.clone()).prop_map(|(value, query)| Expr::InQuery(value, query)),
            query.clone().prop_map(Expr::Exists),
            query.prop_map(Expr::Scalar),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|list| Expr::Call("coalesce", list)),
            (boxed.clone(), prop::sample::select(vec![Type::Text, Type::Integer, Type::Real, Type::Boolean]))
                .prop_map(|(one, kind)| Expr::Cast(one, kind)),
            (prop::collection::vec((truth, inner.clone()), 1..3), prop::option::of(boxed))
                .prop_map(|(arms, otherwise)| Expr::Case(arms, otherwise)),
            (inner, step(), any::<bool>())
                .prop_filter("an arrow on claims is their path", |(value, ..)| !matches!(
                    value,
                    Expr::Auth(Auth::Jwt { as_text: false, .. })
                ))
                .prop_map(|(value, step, as_text)| Expr::Arrow { value: Box::new(value), step, as_text }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_is_read_as_the_same_tree(tree in tree().prop_filter("a condition", |tree| !tree.is_text())) {
        let text = tree.text();
        let read = condition(&text, &[]).map_err(|fault| TestCaseError::fail(format!("{text}: {fault:?}")))?;
        prop_assert_eq!(read.text(), text);
        prop_assert_eq!(read, tree);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(CREATE POLICY p ON t USING \\()?[a-z0-9 ='\"$();.>-]{0,60}") {
        let _ = parsed(&text);
    }
}

#[test]
fn a_function_is_called_by_its_name() {
    let body = Query { column: Expr::Bool(true), from: Vec::new(), condition: None };
    let function =
        Arc::new(Function { name: "F".to_owned(), file: 0, parameters: vec!["x".to_owned()], body, definer: false, many: false });
    let read = condition("f(auth.uid()) AND public.f(1)", std::slice::from_ref(&function)).unwrap();
    assert_eq!(condition(&read.text(), std::slice::from_ref(&function)).unwrap(), read);
    assert!(condition("f()", &[function]).is_err());
}

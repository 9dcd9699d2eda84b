//! Nothing that pg_fork does by itself runs a user's code: hostile objects of every kind that PostgreSQL has, in
//! the source, in the fork, in a third database and in the extension's own schema, while a superuser calls
//! all that there is.

use pg_fork_tests::attach::get;
use pg_fork_tests::Cluster;
use postgres::{Client, SimpleQueryMessage};

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Operators of these names, on these types, could be taken where a name is looked up by a search path.
const OPERATORS: [&str; 8] = ["=", "<>", "<", ">", "||", "->>", "~", "@>"];
const OPERANDS: [(&str, &str); 14] = [
    ("oid", "int4"),
    ("oid", "oid"),
    ("oid", "int8"),
    ("text", "text"),
    ("text", "int8"),
    ("text", "name"),
    ("name", "text"),
    ("name", "name"),
    ("int4", "int4"),
    ("jsonb", "jsonb"),
    ("jsonb", "text"),
    ("\"char\"", "\"char\""),
    ("int2", "int4"),
    ("bytea", "bytea"),
];
/// Functions of pg_catalog that SQL would call, with arguments for which another fits better.
const FUNCTIONS: [&str; 22] = [
    "count(text)",
    "coalesce_it(text)",
    "quote_ident(name)",
    "format(text, text)",
    "format_type(oid, int4)",
    "pg_get_expr(text, oid)",
    "row_to_json(text)",
    "to_json(text)",
    "to_jsonb(text)",
    "cardinality(text[])",
    "concat_ws(text, text)",
    "string_agg(text)",
    "now_it()",
    "upper(text)",
    "to_hex(bigint)",
    "pg_size_pretty(bigint)",
    "pg_get_userbyid(oid)",
    "row_number_it()",
    "fork_list(int)",
    "fork_counters(int)",
    "fork_diff(name, int)",
    "array_to_string(text[], text)",
];

/// What an attacker can make in a database where he owns the schema public and one of his own.
fn plant(client: &mut Client, schema: &str) {
    let spy = |arguments: &str, result: &str, value: &str, name: &str| {
        format!(
            "CREATE FUNCTION {schema}.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
               RAISE LOG 'HOSTILE {name} as %', current_user; RETURN {value}; END $$;"
        )
    };
    let mut sql = String::new();
    for (n, (left, right)) in OPERANDS.into_iter().enumerate() {
        sql.push_str(&spy(
            &format!("{left}, {right}"),
            "boolean",
            "false",
            &format!("op{n}"),
        ));
        sql.push_str(&spy(
            &format!("a {left}, b {right}"),
            "text",
            "''",
            &format!("cat{n}"),
        ));
        for operator in OPERATORS {
            let function = if operator == "||" || operator == "->>" {
                "cat"
            } else {
                "op"
            };
            sql.push_str(&format!(
                "CREATE OPERATOR {schema}.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {schema}.{function}{n});"
            ));
        }
    }
    for function in FUNCTIONS {
        let (name, arguments) = function.split_once('(').unwrap();
        sql.push_str(&spy(arguments.trim_end_matches(')'), "text", "'x'", name));
    }
    run(client, &sql);
    // Types with casts, checks and operator classes; tables with everything that may hang on one.
    run(
        client,
        &format!(
            "SET search_path = {schema};
             CREATE TYPE mood AS ENUM ('sad', 'ok');
             CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'HOSTILE cast to json'; RETURN '1'; END $$;
             CREATE FUNCTION mood_jsonb(mood) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'HOSTILE cast to jsonb'; RETURN '1'; END $$;
             CREATE FUNCTION mood_text(mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'HOSTILE cast to text'; RETURN '1'; END $$;
             CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood) AS IMPLICIT;
             CREATE CAST (mood AS jsonb) WITH FUNCTION mood_jsonb(mood) AS IMPLICIT;
             CREATE CAST (mood AS text) WITH FUNCTION mood_text(mood) AS IMPLICIT;
             CREATE TYPE pair AS (m mood, t text);
             CREATE FUNCTION pair_json(pair) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'HOSTILE cast of a row'; RETURN '1'; END $$;
             CREATE CAST (pair AS json) WITH FUNCTION pair_json(pair);
             CREATE FUNCTION check_it(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'HOSTILE check'; RETURN true; END $$;
             CREATE DOMAIN few AS text;
             CREATE FUNCTION canon(mood, mood) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE LOG 'HOSTILE subtype diff'; RETURN 1; END $$;
             CREATE TYPE moods AS RANGE (SUBTYPE = mood, SUBTYPE_DIFF = canon);
             CREATE FUNCTION mood_cmp(mood, mood) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE LOG 'HOSTILE operator class'; RETURN 0; END $$;
             CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'HOSTILE trigger'; RETURN NEW; END $$;
             CREATE FUNCTION value() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE LOG 'HOSTILE default or expression'; RETURN 'v'; END $$;
             CREATE FUNCTION value(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE LOG 'HOSTILE expression'; RETURN 'v'; END $$;
             CREATE FUNCTION may(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'HOSTILE policy'; RETURN true; END $$;
             CREATE TABLE bait (id int PRIMARY KEY, m mood, p pair, r moods, ms mood[], t text, g text GENERATED ALWAYS AS (value(t)) STORED);
             INSERT INTO bait VALUES (1, 'ok', ROW('sad', 'x'), '[sad,ok]', '{{ok}}', 't');
             ALTER TABLE bait ADD COLUMN f few DEFAULT 'x';
             ALTER DOMAIN few ADD CONSTRAINT k CHECK (check_it(VALUE)) NOT VALID;
             ALTER TABLE bait ADD COLUMN d text DEFAULT value();
             CREATE INDEX ON bait (value(t)) WHERE value(t) = 'v';
             CREATE STATISTICS bait_s ON (value(t)), id FROM bait;
             CREATE TRIGGER fire BEFORE INSERT OR UPDATE ON bait FOR EACH ROW EXECUTE FUNCTION fire();
             CREATE RULE also AS ON DELETE TO bait DO ALSO SELECT value();
             CREATE TABLE safe (id int PRIMARY KEY, t text); INSERT INTO safe VALUES (1, 'x');
             ALTER TABLE safe ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON safe USING (may(t));
             CREATE VIEW look AS SELECT value(t) FROM bait;
             CREATE MATERIALIZED VIEW seen AS SELECT value(t) AS v FROM bait;
             CREATE TABLE parts (id int, t text DEFAULT value()) PARTITION BY LIST (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); INSERT INTO parts VALUES (1, 'a');
             CREATE FUNCTION fork_detach() RETURNS name LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'HOSTILE fork_detach'; RETURN 'x'; END $$;
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT ALL ON TABLES TO PUBLIC;
             RESET search_path"
        ),
    );
}

/// A superuser's: event triggers are not for everyone, and the extension's functions must not wake them.
const EVENTS: &str = "CREATE FUNCTION public.on_event() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'HOSTILE event trigger'; END $$;
    CREATE EVENT TRIGGER e1 ON ddl_command_start EXECUTE FUNCTION public.on_event();
    CREATE EVENT TRIGGER e2 ON ddl_command_end EXECUTE FUNCTION public.on_event();
    CREATE EVENT TRIGGER e3 ON sql_drop EXECUTE FUNCTION public.on_event()";

/// Runs all that there is and fails at none: each is sent by itself.
fn call_everything(client: &mut Client, extension: &str, tag: &str) {
    let calls = [
        "SELECT * FROM X.fork_diff('f')".to_string(),
        "SELECT * FROM X.fork_diff_rows('f', 'mine.bait')".into(),
        "SELECT * FROM X.fork_diff_rows('f', 'mine.parts')".into(),
        "SELECT * FROM X.fork_diff_rows('f', 'public.bait', 1)".into(),
        "SELECT * FROM X.fork_diff_schema('f')".into(),
        "SELECT * FROM X.fork_blocks('f')".into(),
        "SELECT * FROM X.fork_check('f')".into(),
        "SELECT * FROM X.fork_tree()".into(),
        "SELECT * FROM X.pg_forks".into(),
        "SELECT * FROM X.pg_fork_stats".into(),
        "SELECT X.fork_current()".into(),
        format!("SELECT X.fork_create('prod', 'g_{tag}')"),
        format!("SELECT X.fork_mount('g_{tag}')"),
        format!("SELECT X.fork_mount('g_{tag}', 'cut', 'm_{tag}')"),
        format!("SELECT X.fork_mount('g_{tag}', 'now', 'n_{tag}', '{{mine.bait,mine.parts,public.seen}}')"),
        format!("SELECT count(*) FROM n_{tag}.parts"),
        format!("SELECT X.fork_unmount('m_{tag}')"),
        format!("DROP SCHEMA n_{tag} CASCADE"),
        format!("SELECT X.fork_unmount('g_{tag}')"),
        format!("SELECT X.fork_drop('g_{tag}')"),
        "SELECT X.fork_drop('none', missing_ok => true)".into(),
        "VACUUM FULL mine.nothing".into(),
        "DROP OWNED BY nobody".into(),
        "DROP TABLE mine.nothing".into(),
        "CREATE TABLE mine.nothing (id int)".into(),
    ];
    for call in calls {
        let call = call.replace("X.", &format!("{extension}."));
        if call.starts_with("DROP OWNED") && tag == "f" {
            continue; // refused in a fork
        }
        let result = client.simple_query(&call);
        let in_fork = tag == "f"
            && (call.contains("'m_f'")
                || call.contains("'g_f'")
                || call.contains("n_f")
                || call.contains("fork_mount"));
        assert!(result.is_ok() || in_fork, "{call}: {result:?}");
    }
}

#[test]
fn no_code_of_a_users_runs() {
    let cluster = Cluster::new("autovacuum = off\nlog_min_messages = log");
    cluster.sql("postgres", "CREATE ROLE mallory LOGIN; CREATE ROLE nobody; CREATE DATABASE prod OWNER mallory; CREATE DATABASE third OWNER mallory");
    for db in ["prod", "third"] {
        // The extension comes into a schema of the attacker's, in which all is planted before.
        let mut mallory = cluster.client_as("mallory", db);
        run(
            &mut mallory,
            "CREATE SCHEMA mine; CREATE SCHEMA ext; CREATE TABLE mine.nothing (id int)",
        );
        for schema in ["mine", "public", "ext"] {
            plant(&mut mallory, schema);
        }
        // What is called as one of the extension's functions keeps it from being made.
        let mut admin = cluster.client(db);
        assert!(admin
            .batch_execute("CREATE EXTENSION pg_fork SCHEMA ext")
            .is_err());
        run(&mut mallory, "DROP FUNCTION ext.fork_detach()");
        run(&mut admin, "CREATE EXTENSION pg_fork SCHEMA ext");
        run(
            &mut mallory,
            &format!("ALTER DATABASE {db} SET search_path = ext, mine, public, pg_catalog"),
        );
        run(&mut mallory, &format!("ALTER DATABASE {db} SET extra_float_digits = -15; ALTER DATABASE {db} SET DateStyle = 'German'"));
        run(&mut admin, EVENTS);
    }
    let mut admin = cluster.client("prod");
    let made = admin.simple_query("SELECT ext.fork_create('prod', 'f')");
    assert!(made.is_ok(), "{made:?}");
    run(&mut admin, "ALTER DATABASE f OWNER TO mallory");
    let mut inside = cluster.client_as("mallory", "f");
    run(&mut inside, "SET search_path = mine; ALTER TABLE bait DISABLE TRIGGER ALL; UPDATE bait SET m = 'sad' WHERE id OPERATOR(pg_catalog.=) 1;
         INSERT INTO parts VALUES (1, 'b'); ALTER TABLE safe ADD COLUMN n few DEFAULT NULL; INSERT INTO safe VALUES (2, 'y')");
    run(
        &mut inside,
        "ALTER DATABASE f SET search_path = ext, mine, public, pg_catalog",
    );
    let count = |what: &str| {
        cluster
            .log()
            .lines()
            .filter(|line| line.contains(what))
            .count()
    };
    // The test would see it.
    assert!(count("HOSTILE") > 0);
    drop((admin, inside));
    for (db, tag) in [("prod", "p"), ("f", "f"), ("third", "t")] {
        let mut admin = cluster.client(db);
        let before = count("HOSTILE");
        let seen: Vec<String> = cluster
            .log()
            .lines()
            .filter(|line| line.contains("HOSTILE"))
            .map(String::from)
            .collect();
        call_everything(&mut admin, "ext", tag);
        if db == "prod" {
            let attached = admin.simple_query("SELECT ext.fork_attach('f')");
            assert!(attached.is_ok(), "{attached:?}");
            let messages = admin.simple_query("SELECT fork_detach()").unwrap();
            let home = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(String::from),
                _ => None,
            });
            assert_eq!(home.as_deref(), Some("prod"));
            assert_eq!(
                get(&mut admin, "SELECT pg_catalog.current_database()"),
                "prod"
            );
        }
        // DDL that a superuser sends himself wakes event triggers, as anywhere.
        let new: Vec<String> = cluster
            .log()
            .lines()
            .filter(|line| {
                line.contains("HOSTILE")
                    && !line.contains("event trigger")
                    && !seen.contains(&line.to_string())
            })
            .map(String::from)
            .collect();
        assert!(new.is_empty(), "from {db} ({before} before): {new:#?}");
    }
    // The functions alone wake none: one more round without any DDL of the superuser's.
    let mut admin = cluster.client("prod");
    let before = count("event trigger");
    for call in [
        "ext.fork_create('prod', 'h')",
        "ext.fork_mount('h')",
        "ext.fork_unmount('h')",
        "ext.fork_drop('h')",
    ] {
        get(&mut admin, &format!("SELECT {call}::text"));
    }
    assert_eq!(count("event trigger"), before);
}

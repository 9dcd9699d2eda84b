//! What stands in a database does not run with the rights of a superuser who mounts there, unmounts, or drops.

use pg_fork_tests::Cluster;

/// An ordinary role that owns the source plants what it can. Each of its functions notes who ran it; none must run
/// as anybody but its owner.
const PLANT: &str = "
CREATE TABLE ran (who text, what text);
GRANT ALL ON ran TO PUBLIC;
CREATE FUNCTION spy(what text) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.ran VALUES (current_user, what); RETURN true; END $$;
-- Operators and functions that names without a schema might find.
CREATE FUNCTION eq(oid, int4) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN public.spy('oid = int4'); END $$;
CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = int4, FUNCTION = eq);
CREATE FUNCTION eq(name, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN public.spy('name = text'); END $$;
CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = eq);
CREATE FUNCTION eq(\"char\", text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN public.spy('char = text'); END $$;
CREATE OPERATOR public.= (LEFTARG = \"char\", RIGHTARG = text, FUNCTION = eq);
CREATE FUNCTION eq(oid, oid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN public.spy('oid = oid'); END $$;
CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = eq);
CREATE FUNCTION cat(text, bigint) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('text || bigint'); RETURN ''; END $$;
CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = bigint, FUNCTION = cat);
CREATE FUNCTION format_type(oid, int4) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('format_type'); RETURN 'int4'; END $$;
CREATE FUNCTION quote_ident(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('quote_ident'); RETURN 'x'; END $$;
CREATE FUNCTION fork_unmount_named(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('fork_unmount_named'); END $$;
-- Types, casts, domains.
CREATE TYPE mood AS ENUM ('low', 'high');
CREATE FUNCTION as_text(mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('cast to text'); RETURN 'x'; END $$;
CREATE CAST (mood AS text) WITH FUNCTION as_text(mood) AS IMPLICIT;
CREATE FUNCTION as_json(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('cast to json'); RETURN '1'; END $$;
CREATE CAST (mood AS json) WITH FUNCTION as_json(mood);
CREATE DOMAIN amount AS int;
CREATE DOMAIN label AS text;
CREATE TYPE pair AS (a amount, b label);
CREATE TABLE t (id int PRIMARY KEY, m mood);
INSERT INTO t SELECT n, 'low' FROM generate_series(1, 20) n;
ALTER TABLE t ADD COLUMN a amount DEFAULT 7, ADD COLUMN l label DEFAULT 'l', ADD COLUMN aa amount[] DEFAULT '{1,2}',
  ADD COLUMN p pair DEFAULT (1, 'x'), ADD COLUMN mm mood DEFAULT 'high';
ALTER DOMAIN amount ADD CHECK (public.spy('check of amount') AND VALUE > 0) NOT VALID;
ALTER DOMAIN label ADD CHECK (public.spy('check of label')) NOT VALID;
-- Tables with what runs when they are written, read or described.
CREATE FUNCTION now_hostile() RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('default'); RETURN 'd'; END $$;
CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('immutable'); RETURN $1 * 2; END $$;
CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('trigger'); RETURN NEW; END $$;
CREATE TABLE busy (id int PRIMARY KEY, d text DEFAULT now_hostile(), g int GENERATED ALWAYS AS (twice(id)) STORED,
  CHECK (twice(id) > 0));
CREATE INDEX ON busy (twice(id)) WHERE twice(id) > 0;
CREATE STATISTICS busy_s ON twice(id), id FROM busy;
CREATE TRIGGER fires BEFORE INSERT OR UPDATE OR DELETE ON busy FOR EACH ROW EXECUTE FUNCTION fired();
INSERT INTO busy (id) VALUES (1), (2);
CREATE TABLE guarded (id int);
INSERT INTO guarded VALUES (1);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY guard ON guarded USING (public.spy('policy'));
CREATE TABLE parts (id int, m mood) PARTITION BY RANGE ((twice(id)));
CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
INSERT INTO parts VALUES (1, 'high');
CREATE VIEW looks AS SELECT public.spy('view');
CREATE MATERIALIZED VIEW kept AS SELECT id, twice(id) FROM busy;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC;
ALTER DATABASE prod SET search_path = public, pg_catalog;
";

/// Nor do event triggers run, which are a superuser's and mean what people do.
const EVENTS: &str = "
ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON SCHEMAS TO PUBLIC;
CREATE FUNCTION public.event() RETURNS event_trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM public.spy('event ' || tg_tag); END $$;
CREATE EVENT TRIGGER starts ON ddl_command_start EXECUTE FUNCTION public.event();
CREATE EVENT TRIGGER ends ON ddl_command_end EXECUTE FUNCTION public.event();
CREATE EVENT TRIGGER drops ON sql_drop EXECUTE FUNCTION public.event();
";

#[test]
fn no_code_of_others_runs() {
    let cluster = Cluster::new("autovacuum = off");
    cluster.sql(
        "postgres",
        "CREATE ROLE intruder LOGIN; CREATE DATABASE prod OWNER intruder",
    );
    cluster.sql("prod", "CREATE EXTENSION pg_fork; CREATE ROLE keeper");
    let mut intruder = cluster.client_as("intruder", "prod");
    intruder.batch_execute(PLANT).expect("planted");
    let mut admin = cluster.client("prod");
    admin.batch_execute(EVENTS).expect("events");
    drop(admin);
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    // The fork's owner goes on there.
    cluster.sql("f", "ALTER TABLE t ADD COLUMN late amount DEFAULT 9; UPDATE t SET l = 'other' WHERE id = 1; CREATE TYPE new_mood AS ENUM ('x'); ALTER TABLE t ADD n new_mood DEFAULT 'x'");
    cluster.sql("prod", "CREATE TABLE own (id int); CREATE SCHEMA plain");
    for db in ["prod", "f"] {
        cluster.sql(db, "TRUNCATE ran");
        let other = if db == "prod" { "f" } else { "prod" };
        cluster.sql(
            db,
            &format!(
                "SELECT fork_mount('{other}', into_schema => 'm'); SELECT fork_mount('f', 'cut', 'c'); \
                 SELECT fork_mount('{other}', into_schema => 'n', tables => '{{t,busy,parts,kept}}'); \
                 SELECT count(*) FROM m.t; SELECT id, m, a, l, aa, p, mm FROM c.t; SELECT * FROM m.busy; SELECT * FROM m.parts; \
                 SELECT * FROM n.kept; ANALYZE m.t; SELECT fork_unmount('m')"
            ),
        );
        let ran = "SELECT string_agg(DISTINCT concat(what, ' as ', who), ', ') FROM ran";
        assert_eq!(cluster.sql(db, ran), "", "{db}");
        // Nobody was given anything.
        assert_eq!(
            cluster.sql(db, "SET search_path = pg_catalog; SELECT count(*) FROM pg_class WHERE relnamespace IN ('c'::regnamespace, 'n'::regnamespace) AND relacl IS NOT NULL"),
            "0"
        );
        assert_eq!(cluster.sql(db, "SET search_path = pg_catalog; SELECT count(*) FROM pg_namespace WHERE nspname IN ('c', 'n') AND nspacl IS NOT NULL"), "0");
        // Statements of the server's own: the event triggers are theirs, and nothing else.
        cluster.sql(db, "ALTER TABLE n.t OWNER TO keeper; TRUNCATE ran");
        cluster.sql(
            db,
            "DROP SCHEMA IF EXISTS plain; DROP TABLE c.t; DROP SCHEMA c CASCADE; VACUUM FULL busy, n.busy; DROP TABLE IF EXISTS own",
        );
        if db == "prod" {
            // In a fork it is refused.
            cluster.sql(db, "DROP OWNED BY keeper");
        }
        let others = "SELECT string_agg(DISTINCT concat(what, ' as ', who), ', ') FROM ran WHERE what NOT LIKE 'event %' AND who <> 'intruder'";
        assert_eq!(cluster.sql(db, others), "", "{db}");
        cluster.sql(db, "SELECT fork_unmount('n')");
    }
    // The whole database: it makes indexes on expressions anew, as their owner.
    cluster.sql("prod", "SELECT fork_mount('f'); TRUNCATE ran; VACUUM FULL");
    let others = "SELECT count(*) FROM ran WHERE who <> 'intruder'";
    assert_eq!(cluster.sql("prod", others), "0");
    cluster.sql("prod", "TRUNCATE ran; DROP EXTENSION pg_fork CASCADE");
    assert_eq!(
        cluster.sql(
            "prod",
            "SELECT count(*) FROM ran WHERE what NOT LIKE 'event %'"
        ),
        "0"
    );
}

/// Rows of pg_depend for no object at all, as a name that was cut off once left them, do not hold the extension.
#[test]
fn members_that_are_nothing() {
    let cluster = Cluster::new("autovacuum = off");
    cluster.sql("postgres", "CREATE DATABASE prod");
    cluster.sql("prod", "CREATE EXTENSION pg_fork");
    let nothing = "INSERT INTO pg_depend SELECT 'pg_class'::regclass, 0, 0, 'pg_extension'::regclass, oid, 0, 'e' FROM pg_extension WHERE extname = 'pg_fork'; \
         INSERT INTO pg_seclabel VALUES (0, 'pg_class'::regclass, 0, 'pg_fork', '1 now 1')";
    let left = "SELECT (SELECT count(*) FROM pg_depend WHERE objid = 0), (SELECT count(*) FROM pg_seclabel), (SELECT count(*) FROM pg_extension WHERE extname = 'pg_fork')";
    cluster.sql("prod", &format!("{nothing}; DROP EXTENSION pg_fork"));
    assert_eq!(cluster.sql("prod", left), "0|0|0");
    cluster.sql("prod", &format!("CREATE SCHEMA own; CREATE EXTENSION pg_fork SCHEMA own; {nothing}; DROP SCHEMA own CASCADE"));
    assert_eq!(cluster.sql("prod", left), "0|0|0");
    cluster.sql("prod", "CREATE EXTENSION pg_fork; DROP EXTENSION pg_fork");
}

/// What CREATE SCHEMA refuses, and what the function itself does.
#[test]
fn schemas_and_arguments_that_are_refused() {
    let cluster = Cluster::new("autovacuum = off");
    cluster.sql("postgres", "CREATE DATABASE prod; CREATE ROLE poor LOGIN");
    cluster.sql("prod", "CREATE EXTENSION pg_fork; CREATE TABLE t (id int); SELECT fork_create('prod', 'f'); CREATE SCHEMA taken");
    for (call, code) in [
        ("fork_mount('f', into_schema => 'taken')", "42P06"),
        ("fork_mount('f', into_schema => 'pg_mine')", "42939"),
        ("fork_mount('f', into_schema => '')", "42602"),
        ("fork_mount(NULL)", "22004"),
        ("fork_mount('f', tables => ARRAY['t', NULL])", "22004"),
        ("fork_mount('f', 'soon')", "22023"),
        ("fork_mount('f', tables => '{a.b.c}')", "42601"),
        ("fork_unmount(NULL)", "22004"),
        ("fork_unmount('nothing')", "3F000"),
        ("fork_unmount('taken')", "42809"),
        ("fork_unmount('fork_internal')", "42809"),
    ] {
        cluster.expect_error("prod", &format!("SELECT {call}"), code);
        cluster.expect_error(
            "prod",
            &format!("SELECT {}", call.replace("'f'", "name 'f'")),
            code,
        );
    }
    let mut poor = cluster.client_as("poor", "prod");
    let mut state = |sql: &str| {
        let error = poor.batch_execute(sql).expect_err("refused");
        error.code().expect("an SQLSTATE").code().to_string()
    };
    assert_eq!(state("SELECT fork_mount('f')"), "42501");
    assert_eq!(state("SELECT fork_internal.fork_handler(NULL)"), "42501");
    assert_eq!(state("BEGIN READ ONLY; SELECT fork_mount('f')"), "25006");
    assert_eq!(state("ROLLBACK; SELECT fork_unmount('taken')"), "42809");
    cluster.sql("prod", "SELECT fork_mount('f', NULL)");
    assert_eq!(state("SELECT fork_unmount('f')"), "42501");
    cluster.sql("prod", "SELECT fork_unmount('f')");
    assert_eq!(state("BEGIN READ ONLY; SELECT fork_unmount('f')"), "25006");
    // The extension's own functions that nobody calls are in a schema that is nobody's.
    let open = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'fork_internal'::regnamespace AND has_function_privilege('poor', oid, 'EXECUTE')";
    assert_eq!(cluster.sql("prod", open), "0");
    assert_eq!(
        cluster.sql(
            "prod",
            "SELECT has_schema_privilege('poor', 'fork_internal', 'USAGE, CREATE')"
        ),
        "f"
    );
}

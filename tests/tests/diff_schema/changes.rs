//! Statements, and the rows of `fork_diff_schema` that each makes.

pub const SET_UP: &str = "
    CREATE ROLE someone LOGIN; CREATE ROLE nobody_in; GRANT nobody_in TO someone; GRANT pg_monitor TO nobody_in;
    CREATE SCHEMA s;
    CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL DEFAULT 'x', n numeric(8, 2), note text);
    CREATE TABLE parted (k int, v text) PARTITION BY RANGE (k);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    CREATE TABLE gone (a int);
    CREATE INDEX t_name ON t (name);
    CREATE VIEW v AS SELECT id, name FROM t;
    CREATE MATERIALIZED VIEW mv AS SELECT count(*) AS n FROM t;
    CREATE SEQUENCE seq;
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a';
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int);
    CREATE POLICY p ON t USING (id > 0);
    SET client_min_messages = error;
    CREATE TABLE old (a int PRIMARY KEY); CREATE RULE old_rule AS ON DELETE TO old DO INSTEAD NOTHING;
    CREATE TRIGGER old_trigger BEFORE INSERT ON old FOR EACH ROW EXECUTE FUNCTION touch();
    CREATE AGGREGATE moving (int) (SFUNC = int4pl, STYPE = int, MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int, MFINALFUNC = int4abs);
    CREATE OPERATOR FAMILY old_family USING btree;
    CREATE OPERATOR CLASS old_class FOR TYPE int USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int);
    CREATE FOREIGN DATA WRAPPER old_wrapper OPTIONS (o '1'); CREATE SERVER old_server FOREIGN DATA WRAPPER old_wrapper;
    CREATE USER MAPPING FOR postgres SERVER old_server; CREATE FOREIGN TABLE old_foreign (a int) SERVER old_server;
    CREATE FUNCTION ev_old() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER old_event ON ddl_command_end EXECUTE FUNCTION ev_old();
    CREATE PUBLICATION old_publication FOR TABLE old;
    CREATE TEXT SEARCH DICTIONARY old_dictionary (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION old_search (COPY = simple);
    CREATE CAST (pair AS int) WITH INOUT; CREATE COLLATION old_collation (LOCALE = 'C'); CREATE STATISTICS old_statistics ON k, v FROM parted;
    CREATE TYPE shelled; CREATE FUNCTION shelled_in(cstring) RETURNS shelled LANGUAGE internal IMMUTABLE STRICT AS 'textin';
    CREATE FUNCTION shelled_out(shelled) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
    CREATE TYPE shelled (INPUT = shelled_in, OUTPUT = shelled_out);
    CREATE TABLE refers (old int REFERENCES old); CREATE TABLE late (a int UNIQUE DEFERRABLE);
    CREATE EXTENSION lo; CREATE SCHEMA own; CREATE TABLE own.rate (n int, v text); ALTER EXTENSION lo ADD TABLE own.rate;
    CREATE FUNCTION own.twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2'; ALTER EXTENSION lo ADD FUNCTION own.twice(int);
    SELECT lo_create(700001); SELECT lo_create(700002);";

/// A statement, and the objects whose rows it makes: created, dropped, altered.
pub const CHANGES: &[(&str, &str)] = &[
    (
        "CREATE TABLE new_one (a int)",
        "+table public.new_one, +table column public.new_one.a",
    ),
    (
        "DROP TABLE gone",
        "-table public.gone, -table column public.gone.a",
    ),
    (
        "ALTER TABLE t ADD COLUMN extra int DEFAULT 7",
        "+table column public.t.extra",
    ),
    (
        "ALTER TABLE t DROP COLUMN note",
        "-table column public.t.note",
    ),
    (
        "ALTER TABLE t ALTER n TYPE numeric(10, 2)",
        "~table column public.t.n",
    ),
    (
        "ALTER TABLE t ALTER name DROP DEFAULT",
        "~table column public.t.name",
    ),
    (
        "ALTER TABLE t ALTER name DROP NOT NULL",
        "~table column public.t.name",
    ),
    (
        "ALTER TABLE t ALTER name SET STORAGE EXTERNAL",
        "~table column public.t.name",
    ),
    (
        "ALTER TABLE t ALTER name SET STATISTICS 500",
        "~table column public.t.name",
    ),
    (
        "ALTER TABLE t ALTER name SET (n_distinct = 5)",
        "~table column public.t.name",
    ),
    (
        "ALTER TABLE t ALTER note SET COMPRESSION pglz",
        "~table column public.t.note",
    ),
    (
        "ALTER TABLE t ALTER note TYPE text COLLATE \"C\"",
        "~table column public.t.note",
    ),
    (
        "ALTER TABLE t ADD g int GENERATED ALWAYS AS (id * 2) STORED",
        "+table column public.t.g",
    ),
    (
        "ALTER TABLE t ALTER id ADD GENERATED ALWAYS AS IDENTITY",
        "~table column public.t.id, +sequence public.t_id_seq",
    ),
    (
        "ALTER TABLE t RENAME note TO remark",
        "-table column public.t.note, +table column public.t.remark",
    ),
    ("ALTER TABLE t SET (fillfactor = 70)", "~table public.t"),
    (
        "ALTER TABLE t SET (toast.autovacuum_enabled = off)",
        "~table public.t",
    ),
    ("ALTER TABLE t SET UNLOGGED", "~table public.t"),
    ("ALTER TABLE t OWNER TO someone", "~table public.t"),
    ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "~table public.t"),
    ("ALTER TABLE t REPLICA IDENTITY FULL", "~table public.t"),
    (
        "ALTER TABLE t ADD CONSTRAINT c CHECK (id > 0)",
        "+table constraint c on public.t",
    ),
    (
        "ALTER TABLE t ADD CONSTRAINT c CHECK (id > 0) NOT VALID",
        "+table constraint c on public.t",
    ),
    (
        "ALTER TABLE t DROP CONSTRAINT t_pkey",
        "-table constraint t_pkey on public.t, -index public.t_pkey",
    ),
    (
        "CREATE TABLE r (t int REFERENCES t)",
        "+table public.r, +table column public.r.t, +table constraint r_t_fkey on public.r",
    ),
    ("CREATE INDEX i ON t (n) WHERE n > 0", "+index public.i"),
    ("DROP INDEX t_name", "-index public.t_name"),
    ("CLUSTER t USING t_name", "~index public.t_name"),
    (
        "CREATE TABLE parted_2 PARTITION OF parted DEFAULT",
        "+table public.parted_2, +table column public.parted_2.k, +table column public.parted_2.v",
    ),
    (
        "ALTER TABLE parted DETACH PARTITION parted_1",
        "~table public.parted_1, ~table column public.parted_1.k, ~table column public.parted_1.v",
    ),
    (
        "CREATE OR REPLACE VIEW v AS SELECT id, name, 1 AS one FROM t",
        "~view public.v",
    ),
    ("ALTER VIEW v SET (security_barrier)", "~view public.v"),
    ("DROP MATERIALIZED VIEW mv", "-materialized view public.mv"),
    (
        "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING",
        "+rule r on public.t",
    ),
    ("ALTER SEQUENCE seq INCREMENT 5", "~sequence public.seq"),
    ("ALTER TYPE mood ADD VALUE 'happy'", "~type public.mood"),
    ("ALTER TYPE pair ADD ATTRIBUTE c int", "~type public.pair"),
    (
        "ALTER DOMAIN positive ADD CHECK (VALUE < 10)",
        "~type public.positive",
    ),
    (
        "CREATE TYPE span AS RANGE (SUBTYPE = numeric)",
        "+type public.span",
    ),
    (
        "CREATE OR REPLACE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a + 1'",
        "~function public.f(integer)",
    ),
    ("ALTER FUNCTION f STABLE", "~function public.f(integer)"),
    (
        "CREATE FUNCTION f(a text) RETURNS text LANGUAGE sql AS 'SELECT a'",
        "+function public.f(pg_catalog.text)",
    ),
    (
        "CREATE PROCEDURE pr() LANGUAGE sql AS 'SELECT 1'",
        "+procedure public.pr()",
    ),
    (
        "DROP AGGREGATE total (int)",
        "-aggregate public.total(integer)",
    ),
    (
        "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION touch()",
        "+trigger tr on public.t",
    ),
    ("ALTER POLICY p ON t TO someone", "~policy p on public.t"),
    (
        "GRANT SELECT ON t TO someone",
        "+rights of someone on table public.t",
    ),
    (
        "GRANT UPDATE (name) ON t TO someone WITH GRANT OPTION",
        "+rights of someone on table column public.t.name",
    ),
    (
        "REVOKE EXECUTE ON FUNCTION f FROM PUBLIC",
        "+rights of PUBLIC on function public.f(integer)",
    ),
    (
        "REVOKE EXECUTE ON FUNCTION pg_sleep FROM PUBLIC",
        "+rights of PUBLIC on function pg_catalog.pg_sleep(double precision)",
    ),
    (
        "GRANT CREATE ON SCHEMA public TO someone",
        "+rights of someone on schema public",
    ),
    (
        "GRANT USAGE ON TYPE mood TO someone",
        "+rights of someone on type public.mood",
    ),
    (
        "ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO someone",
        "+default acl for role postgres in schema s on tables",
    ),
    (
        "COMMENT ON TABLE t IS 'hello'",
        "+comment on table public.t",
    ),
    (
        "COMMENT ON COLUMN t.name IS 'hello'",
        "+comment on table column public.t.name",
    ),
    ("CREATE SCHEMA \"A b\"", "+schema \"A b\""),
    ("DROP SCHEMA s", "-schema s"),
    (
        "CREATE EXTENSION amcheck",
        "+extension amcheck, +comment on extension amcheck",
    ),
    (
        "CREATE STATISTICS st ON id, name FROM t",
        "+statistics object public.st",
    ),
    (
        "CREATE CAST (mood AS int) WITH INOUT",
        "+cast (public.mood AS integer)",
    ),
    ("CREATE COLLATION co FROM \"C\"", "+collation public.co"),
    (
        "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
        "+operator public.===(integer,integer)",
    ),
    (
        "CREATE TEXT SEARCH CONFIGURATION tc (COPY = simple)",
        "+text search configuration public.tc",
    ),
    (
        "CREATE TEXT SEARCH DICTIONARY td (TEMPLATE = simple)",
        "+text search dictionary public.td",
    ),
    (
        "CREATE PUBLICATION pu FOR TABLE t WHERE (id > 0)",
        "+publication pu, +publication relation public.t in publication pu",
    ),
    ("CREATE FOREIGN DATA WRAPPER w", "+foreign-data wrapper w"),
    (
        "CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "+function public.ev()",
    ),
    (
        "ALTER TABLE t DROP COLUMN note; ALTER TABLE t ADD COLUMN z int",
        "-table column public.t.note, +table column public.t.z",
    ),
    (
        "ALTER TABLE t DROP COLUMN n; ALTER TABLE t ADD COLUMN n numeric(8, 2)",
        "~order of columns of table public.t",
    ),
    (
        "CREATE TABLE typed OF pair",
        "+table public.typed, +table column public.typed.a, +table column public.typed.b",
    ),
    (
        "CREATE TABLE kid () INHERITS (old)",
        "+table public.kid, +table column public.kid.a",
    ),
    (
        "ALTER VIEW v ALTER name SET DEFAULT 'z'",
        "+view column public.v.name",
    ),
    (
        "ALTER TABLE old DISABLE RULE old_rule",
        "~rule old_rule on public.old",
    ),
    (
        "ALTER TABLE old ENABLE ALWAYS TRIGGER old_trigger",
        "~trigger old_trigger on public.old",
    ),
    (
        "ALTER SEQUENCE seq OWNED BY t.id",
        "~sequence public.seq",
    ),
    (
        "ALTER FUNCTION f DEPENDS ON EXTENSION plpgsql",
        "~function public.f(integer)",
    ),
    (
        "ALTER INDEX t_name DEPENDS ON EXTENSION plpgsql",
        "~index public.t_name",
    ),
    (
        "ALTER MATERIALIZED VIEW mv DEPENDS ON EXTENSION plpgsql",
        "~materialized view public.mv",
    ),
    (
        "ALTER TRIGGER old_trigger ON old DEPENDS ON EXTENSION plpgsql",
        "~trigger old_trigger on public.old",
    ),
    (
        "CREATE OR REPLACE AGGREGATE total (named int) (SFUNC = int4pl, STYPE = int)",
        "~aggregate public.total(integer)",
    ),
    (
        "CREATE OR REPLACE AGGREGATE moving (int) (SFUNC = int4pl, STYPE = int, MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int, MFINALFUNC = int4abs, MSSPACE = 8)",
        "~aggregate public.moving(integer)",
    ),
    (
        "CREATE OR REPLACE AGGREGATE moving (int) (SFUNC = int4pl, STYPE = int, MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int, MFINALFUNC = int4abs, MFINALFUNC_MODIFY = READ_WRITE)",
        "~aggregate public.moving(integer)",
    ),
    (
        "ALTER TYPE shelled SET (STORAGE = external)",
        "~type public.shelled",
    ),
    (
        "CREATE OPERATOR CLASS oc FOR TYPE int USING btree AS OPERATOR 1 <, FUNCTION 1 btint4cmp(int, int)",
        "+operator class public.oc USING btree, +operator family public.oc USING btree",
    ),
    (
        "CREATE OPERATOR CLASS oc FOR TYPE int USING btree FAMILY old_family AS OPERATOR 1 <",
        "+operator class public.oc USING btree, ~operator family public.old_family USING btree",
    ),
    (
        "ALTER OPERATOR FAMILY old_family USING btree ADD FUNCTION 1 (int, int) btint4cmp(int, int)",
        "~operator family public.old_family USING btree",
    ),
    (
        "ALTER OPERATOR CLASS old_class USING hash OWNER TO someone",
        "~operator class public.old_class USING hash",
    ),
    (
        "DROP OPERATOR FAMILY old_class USING hash CASCADE",
        "-operator class public.old_class USING hash, -operator family public.old_class USING hash",
    ),
    (
        "ALTER FOREIGN DATA WRAPPER old_wrapper OPTIONS (SET o '2')",
        "~foreign-data wrapper old_wrapper",
    ),
    (
        "ALTER FOREIGN DATA WRAPPER old_wrapper OPTIONS (ADD password 'x')",
        "~foreign-data wrapper old_wrapper",
    ),
    (
        "CREATE SERVER other FOREIGN DATA WRAPPER old_wrapper",
        "+server other",
    ),
    (
        "ALTER SERVER old_server VERSION '2' OPTIONS (ADD host 'x')",
        "~server old_server",
    ),
    (
        "CREATE USER MAPPING FOR someone SERVER old_server OPTIONS (user 'x')",
        "+user mapping someone on server old_server",
    ),
    (
        "CREATE USER MAPPING FOR PUBLIC SERVER old_server",
        "+user mapping public on server old_server",
    ),
    (
        "DROP USER MAPPING FOR postgres SERVER old_server",
        "-user mapping postgres on server old_server",
    ),
    (
        "CREATE FOREIGN TABLE ft (a int) SERVER old_server",
        "+foreign table public.ft, +foreign table column public.ft.a",
    ),
    (
        "ALTER FOREIGN TABLE old_foreign OPTIONS (ADD x '1')",
        "~foreign table public.old_foreign",
    ),
    (
        "ALTER FOREIGN TABLE old_foreign ALTER a OPTIONS (ADD x '1')",
        "~foreign table column public.old_foreign.a",
    ),
    (
        "CREATE EVENT TRIGGER et ON sql_drop EXECUTE FUNCTION ev_old()",
        "+event trigger et",
    ),
    (
        "ALTER EVENT TRIGGER old_event DISABLE",
        "~event trigger old_event",
    ),
    (
        "ALTER PUBLICATION old_publication SET (publish = 'insert')",
        "~publication old_publication",
    ),
    (
        "ALTER PUBLICATION old_publication ADD TABLES IN SCHEMA s",
        "+publication namespace s in publication old_publication",
    ),
    (
        "ALTER PUBLICATION old_publication SET TABLE old WHERE (a > 1)",
        "~publication relation public.old in publication old_publication",
    ),
    (
        "ALTER TEXT SEARCH CONFIGURATION old_search ALTER MAPPING FOR word WITH old_dictionary",
        "~text search configuration public.old_search",
    ),
    (
        "ALTER TEXT SEARCH DICTIONARY old_dictionary (ACCEPT = false)",
        "~text search dictionary public.old_dictionary",
    ),
    (
        "CREATE TEXT SEARCH TEMPLATE tt (LEXIZE = dsimple_lexize)",
        "+text search template public.tt",
    ),
    (
        "CREATE TEXT SEARCH PARSER tp (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype)",
        "+text search parser public.tp",
    ),
    (
        "DROP CAST (pair AS int); CREATE CAST (pair AS int) WITH INOUT AS ASSIGNMENT",
        "~cast (public.pair AS integer)",
    ),
    (
        "ALTER COLLATION old_collation OWNER TO someone",
        "~collation public.old_collation",
    ),
    (
        "CREATE CONVERSION cv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
        "+conversion public.cv",
    ),
    (
        "ALTER STATISTICS old_statistics SET STATISTICS 5",
        "~statistics object public.old_statistics",
    ),
    (
        "CREATE ACCESS METHOD am TYPE TABLE HANDLER heap_tableam_handler",
        "+access method am",
    ),
    (
        "CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal))",
        "+transform for integer on language sql",
    ),
    (
        "CREATE TRUSTED LANGUAGE la HANDLER plpgsql_call_handler",
        "+language la",
    ),
    (
        "GRANT USAGE ON FOREIGN SERVER old_server TO someone",
        "+rights of someone on server old_server",
    ),
    (
        "GRANT USAGE ON FOREIGN DATA WRAPPER old_wrapper TO someone",
        "+rights of someone on foreign-data wrapper old_wrapper",
    ),
    (
        "REVOKE USAGE ON LANGUAGE sql FROM PUBLIC",
        "+rights of PUBLIC on language sql",
    ),
    // What a definition that the server prints does not say.
    (
        "ALTER TABLE refers DISABLE TRIGGER ALL",
        "~table constraint refers_old_fkey on public.refers",
    ),
    (
        "ALTER TABLE old DISABLE TRIGGER ALL",
        "~table constraint refers_old_fkey on public.refers, ~trigger old_trigger on public.old",
    ),
    (
        "ALTER TABLE refers DISABLE TRIGGER ALL; ALTER TABLE refers ENABLE TRIGGER ALL",
        "",
    ),
    (
        "ALTER TABLE late DISABLE TRIGGER ALL",
        "~table constraint late_a_key on public.late",
    ),
    ("REFRESH MATERIALIZED VIEW mv WITH NO DATA", "~materialized view public.mv"),
    (
        "ALTER MATERIALIZED VIEW mv ALTER n SET (n_distinct = 3)",
        "+materialized view column public.mv.n",
    ),
    (
        "CREATE UNIQUE INDEX u ON t (id); ALTER TABLE t REPLICA IDENTITY USING INDEX u; DROP INDEX u",
        "~table public.t",
    ),
    // Objects of extensions, and users' objects on them.
    (
        "CREATE TRIGGER mine BEFORE INSERT ON own.rate FOR EACH ROW EXECUTE FUNCTION touch(); CREATE INDEX rate_n ON own.rate (n); CREATE STATISTICS rate_s ON n, v FROM own.rate",
        "+trigger mine on own.rate, +index own.rate_n, +statistics object public.rate_s",
    ),
    (
        "CREATE POLICY mine ON own.rate USING (n > 0); CREATE RULE mine AS ON DELETE TO own.rate DO INSTEAD NOTHING",
        "+policy mine on own.rate, +rule mine on own.rate",
    ),
    (
        "COMMENT ON TABLE own.rate IS 'x'; COMMENT ON COLUMN own.rate.n IS 'y'; GRANT SELECT ON own.rate TO someone",
        "+comment on table own.rate, +comment on table column own.rate.n, +rights of someone on table own.rate",
    ),
    (
        "ALTER TABLE own.rate ADD more int; ALTER TABLE own.rate ALTER n SET DEFAULT 3",
        "+table column own.rate.more, ~table column own.rate.n",
    ),
    (
        "CREATE OR REPLACE FUNCTION own.twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 3'",
        "~function own.twice(integer)",
    ),
    (
        "ALTER EXTENSION lo DROP FUNCTION own.twice(int)",
        "~function own.twice(integer)",
    ),
    (
        "DROP EXTENSION lo CASCADE",
        "-extension lo, -comment on extension lo",
    ),
    // The server's own objects.
    (
        "ALTER FUNCTION pg_catalog.lower(text) COST 7",
        "~function pg_catalog.lower(pg_catalog.text)",
    ),
    (
        "COMMENT ON FUNCTION pg_catalog.lower(text) IS 'other'",
        "~comment on function pg_catalog.lower(pg_catalog.text)",
    ),
    (
        "ALTER TABLE information_schema.sql_parts ADD more int",
        "+table column information_schema.sql_parts.more",
    ),
    // Large objects.
    ("SELECT lo_create(700009)", "+large object 700009"),
    ("SELECT lo_unlink(700001)", "-large object 700001"),
    ("ALTER LARGE OBJECT 700001 OWNER TO someone", "~large object 700001"),
    (
        "GRANT SELECT ON LARGE OBJECT 700001 TO someone; COMMENT ON LARGE OBJECT 700001 IS 'x'",
        "+rights of someone on large object 700001, +comment on large object 700001",
    ),
    ("SELECT lo_put(700001, 0, 'other')", ""),
    // Told, and not shown.
    (
        "ALTER USER MAPPING FOR postgres SERVER old_server OPTIONS (ADD password 'x')",
        "~user mapping postgres on server old_server",
    ),
    (
        "ALTER SERVER old_server OPTIONS (ADD password 'x')",
        "~server old_server",
    ),
    ("REINDEX SYSTEM f; VACUUM FULL pg_catalog.pg_proc; ANALYZE", ""),
    // What is no change of a definition.
    ("INSERT INTO t VALUES (1)", ""),
    ("UPDATE t SET name = name", ""),
    ("VACUUM FULL t", ""),
    ("ANALYZE t", ""),
    ("SELECT nextval('seq')", ""),
    ("REINDEX TABLE t", ""),
    ("CREATE TEMP TABLE tt (a int)", ""),
    ("REFRESH MATERIALIZED VIEW mv", ""),
];

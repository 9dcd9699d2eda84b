//! What random statements are made of: `$t` is a table, `$c` a column, `$r` a role, `$x` a new name, `$n` a
//! number.

pub const SET_UP: &str = r#"
    CREATE SCHEMA s; CREATE SCHEMA "S2";
    CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE span AS RANGE (SUBTYPE = numeric);
    CREATE FUNCTION f(a int, b text DEFAULT 'x') RETURNS int LANGUAGE sql AS 'SELECT a';
    CREATE FUNCTION same(a int, b int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT a = b';
    CREATE FUNCTION rank(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a - b';
    CREATE FUNCTION to_int(m mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE PROCEDURE pr(a int) LANGUAGE sql AS 'SELECT 1';
    CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int);
    CREATE TABLE t (id int PRIMARY KEY, a int, b text DEFAULT 'x', c numeric(8, 2), "D" mood);
    CREATE TABLE s.u (id serial PRIMARY KEY, a int, b text, c numeric, "D" text, t int REFERENCES t);
    CREATE TABLE "Up" (id int GENERATED ALWAYS AS IDENTITY, a int NOT NULL, b text, c int, "D" int, UNIQUE (a));
    CREATE TABLE base (id int, a int DEFAULT 1, b text, c numeric CHECK (c > 0), "D" text);
    CREATE TABLE kid (extra int) INHERITS (base);
    CREATE TABLE parted (id int, a int, b text, c numeric, "D" text, PRIMARY KEY (id, a)) PARTITION BY RANGE (a);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    CREATE TABLE loose (id int NOT NULL, a int NOT NULL, b text, c numeric, "D" text, PRIMARY KEY (id, a));
    CREATE INDEX t_a ON t (a); CREATE INDEX parted_b ON parted (b); CREATE INDEX "Up_b" ON "Up" (b, lower(b));
    CREATE UNIQUE INDEX loose_id ON loose (id);
    CREATE VIEW v AS SELECT id, a FROM t; CREATE MATERIALIZED VIEW mv AS SELECT id, b FROM t;
    CREATE SEQUENCE seq; CREATE SEQUENCE owned OWNED BY t.a;
    CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION touch();
    CREATE TRIGGER tr AFTER UPDATE ON parted FOR EACH ROW EXECUTE FUNCTION touch();
    CREATE RULE ru AS ON DELETE TO s.u DO INSTEAD NOTHING;
    CREATE POLICY p ON t USING (id > 0); CREATE STATISTICS st ON a, b FROM t;
    CREATE COLLATION co (LOCALE = 'C'); CREATE CONVERSION cv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
    CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = same);
    CREATE OPERATOR FAMILY fam USING btree;
    CREATE OPERATOR CLASS oc FOR TYPE int USING btree FAMILY fam AS OPERATOR 3 ===, FUNCTION 1 rank(int, int);
    CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
    CREATE CAST (mood AS int) WITH FUNCTION to_int(mood);
    CREATE TEXT SEARCH DICTIONARY td (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION tc (COPY = simple);
    CREATE TEXT SEARCH PARSER tp (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
    CREATE TEXT SEARCH TEMPLATE tt (INIT = dsimple_init, LEXIZE = dsimple_lexize);
    CREATE FOREIGN DATA WRAPPER w OPTIONS (o '1'); CREATE SERVER srv TYPE 'x' FOREIGN DATA WRAPPER w;
    CREATE USER MAPPING FOR someone SERVER srv; CREATE FOREIGN TABLE ft (a int, b text) SERVER srv;
    CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION ev();
    SET client_min_messages = error; CREATE PUBLICATION pu FOR TABLE t, TABLES IN SCHEMA s;
    CREATE EXTENSION lo;
    ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO someone;
    GRANT SELECT ON t TO someone; GRANT UPDATE (a) ON t TO someone; COMMENT ON TABLE t IS 'one';
    GRANT USAGE ON SCHEMA s TO someone; REVOKE EXECUTE ON FUNCTION f FROM PUBLIC;"#;

pub const STATEMENTS: &[&str] = &[
    // Schemas, extensions, access methods.
    "CREATE SCHEMA $x",
    "CREATE SCHEMA $x AUTHORIZATION $r",
    "DROP SCHEMA IF EXISTS $x CASCADE",
    "ALTER SCHEMA \"S2\" RENAME TO $x",
    "ALTER SCHEMA \"S2\" OWNER TO $r",
    "CREATE EXTENSION btree_gin",
    "DROP EXTENSION lo",
    "CREATE ACCESS METHOD $x TYPE TABLE HANDLER heap_tableam_handler",
    "ALTER TABLE t SET ACCESS METHOD heap2",
    "CREATE TABLE $x (a int) USING heap2",
    // Tables.
    "CREATE TABLE $x (id int PRIMARY KEY, a int, b text DEFAULT 'it''s', CHECK (a > $n))",
    "CREATE UNLOGGED TABLE s.$x (a int, b mood DEFAULT 'sad', c positive, \"Odd name\" pair)",
    "CREATE TABLE \"S2\".$x (LIKE t INCLUDING ALL)",
    "CREATE TABLE $x () INHERITS (base)",
    "CREATE TABLE $x AS SELECT 1 AS one, 'x'::text COLLATE \"C\" AS two",
    "CREATE TABLE parted_$x PARTITION OF parted FOR VALUES FROM ($n0) TO ($n1)",
    "CREATE TABLE parted_$x PARTITION OF parted (b DEFAULT 'p') DEFAULT",
    "CREATE TABLE $x (a int, b text) PARTITION BY LIST (lower(b))",
    "CREATE TABLE $x (a int, b text) PARTITION BY HASH (a); CREATE TABLE $x_1 PARTITION OF $x FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
    "ALTER TABLE parted DETACH PARTITION parted_1",
    "ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES FROM (0) TO (9)",
    "ALTER TABLE parted ATTACH PARTITION loose FOR VALUES FROM (1000) TO (1001)",
    "ALTER TABLE kid NO INHERIT base",
    "ALTER TABLE kid INHERIT base",
    "ALTER TABLE loose INHERIT base",
    "DROP TABLE $t",
    "DROP TABLE $t CASCADE",
    "DROP TABLE $x CASCADE",
    "ALTER TABLE $x RENAME TO $x",
    "ALTER TABLE loose RENAME TO $x",
    "ALTER TABLE $t SET SCHEMA \"S2\"",
    "ALTER TABLE $t OWNER TO $r",
    "ALTER TABLE $t SET (fillfactor = $n)",
    "ALTER TABLE $t SET (toast.autovacuum_enabled = off)",
    "ALTER TABLE $t SET UNLOGGED",
    "ALTER TABLE $t REPLICA IDENTITY FULL",
    "ALTER TABLE $t REPLICA IDENTITY NOTHING",
    "ALTER TABLE loose REPLICA IDENTITY USING INDEX loose_id",
    "ALTER TABLE $t ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE $t FORCE ROW LEVEL SECURITY",
    // Columns.
    "ALTER TABLE $t ADD COLUMN $x int",
    "ALTER TABLE $t ADD COLUMN $x text NOT NULL DEFAULT md5('$n')",
    "ALTER TABLE $t ADD COLUMN $x int GENERATED ALWAYS AS (id * $n) STORED",
    "ALTER TABLE $t ADD COLUMN $x int GENERATED BY DEFAULT AS IDENTITY",
    "ALTER TABLE $t ADD COLUMN $x bigserial",
    "ALTER TABLE $t DROP COLUMN $c",
    "ALTER TABLE $t DROP COLUMN $c CASCADE",
    "ALTER TABLE $t DROP COLUMN $x CASCADE",
    "ALTER TABLE t DROP COLUMN c; ALTER TABLE t ADD COLUMN c numeric(8, 2)",
    "ALTER TABLE $t DROP COLUMN b CASCADE; ALTER TABLE $t ADD COLUMN b text",
    "ALTER TABLE $t RENAME COLUMN $c TO $x",
    "ALTER TABLE $t RENAME COLUMN a TO \"A b\"",
    "ALTER TABLE $t ALTER COLUMN $c TYPE text",
    "ALTER TABLE $t ALTER COLUMN $c TYPE varchar($n)",
    "ALTER TABLE $t ALTER COLUMN c TYPE numeric($n, 1)",
    "ALTER TABLE $t ALTER COLUMN b TYPE text COLLATE \"C\"",
    "ALTER TABLE $t ALTER COLUMN $c SET DEFAULT NULL",
    "ALTER TABLE $t ALTER COLUMN a SET DEFAULT $n",
    "ALTER TABLE $t ALTER COLUMN b SET DEFAULT 'say ''$n'''",
    "ALTER TABLE $t ALTER COLUMN $c DROP DEFAULT",
    "ALTER TABLE $t ALTER COLUMN $c SET NOT NULL",
    "ALTER TABLE $t ALTER COLUMN $c DROP NOT NULL",
    "ALTER TABLE $t ALTER COLUMN b SET STORAGE EXTERNAL",
    "ALTER TABLE $t ALTER COLUMN b SET COMPRESSION pglz",
    "ALTER TABLE $t ALTER COLUMN $c SET STATISTICS $n",
    "ALTER TABLE $t ALTER COLUMN $c SET (n_distinct = $n)",
    "ALTER TABLE \"Up\" ALTER COLUMN id SET GENERATED BY DEFAULT",
    "ALTER TABLE \"Up\" ALTER COLUMN id DROP IDENTITY",
    "ALTER TABLE \"Up\" ALTER COLUMN id SET INCREMENT BY $n",
    // Constraints.
    "ALTER TABLE $t ADD CONSTRAINT $x CHECK (a <> $n)",
    "ALTER TABLE $t ADD CONSTRAINT $x CHECK (a <> $n) NOT VALID",
    "ALTER TABLE base ADD CONSTRAINT $x CHECK (a <> $n) NO INHERIT",
    "ALTER TABLE $t VALIDATE CONSTRAINT $x",
    "ALTER TABLE $t ADD CONSTRAINT $x UNIQUE (id, a)",
    "ALTER TABLE $t ADD CONSTRAINT $x UNIQUE (a, id) DEFERRABLE INITIALLY DEFERRED",
    "ALTER TABLE $t ADD CONSTRAINT $x UNIQUE NULLS NOT DISTINCT (id, a) INCLUDE (b) WITH (fillfactor = $n)",
    "ALTER TABLE $t ADD CONSTRAINT $x EXCLUDE USING gist (span(c, c) WITH &&)",
    "ALTER TABLE $t ADD CONSTRAINT $x FOREIGN KEY (a) REFERENCES t ON DELETE CASCADE",
    "ALTER TABLE $t ADD CONSTRAINT $x FOREIGN KEY (a) REFERENCES \"Up\" (a) DEFERRABLE",
    "ALTER TABLE $t DROP CONSTRAINT $x",
    "ALTER TABLE $t RENAME CONSTRAINT $x TO $x",
    "ALTER TABLE s.u ALTER CONSTRAINT u_t_fkey DEFERRABLE",
    "ALTER TABLE s.u DROP CONSTRAINT u_t_fkey",
    "ALTER TABLE t DROP CONSTRAINT t_pkey CASCADE",
    "ALTER TABLE base DROP CONSTRAINT base_c_check",
    // Indexes, statistics.
    "CREATE INDEX i$x ON $t (a) WHERE a > $n",
    "CREATE INDEX i$x ON $t (b DESC, lower(b) COLLATE \"C\") INCLUDE (a)",
    "CREATE UNIQUE INDEX i$x ON t (id, (a + $n)) WITH (fillfactor = $n)",
    "CREATE INDEX ON mv USING hash (id)",
    "DROP INDEX i$x",
    "DROP INDEX \"Up_b\"",
    "ALTER INDEX t_a RENAME TO $x",
    "ALTER INDEX t_a SET (fillfactor = $n)",
    "ALTER INDEX t_pkey SET (fillfactor = $n)",
    "ALTER INDEX \"Up_b\" ALTER COLUMN 2 SET STATISTICS $n",
    "ALTER INDEX t_a DEPENDS ON EXTENSION plpgsql",
    "ALTER TABLE t CLUSTER ON t_a",
    "ALTER TABLE t CLUSTER ON t_pkey",
    "CREATE STATISTICS $x (ndistinct) ON a, b FROM $t",
    "ALTER STATISTICS st SET STATISTICS $n",
    "DROP STATISTICS st",
    // Views, rules, triggers, policies.
    "CREATE VIEW $x AS SELECT id, a FROM $t WHERE a > $n",
    "CREATE VIEW s.$x WITH (security_barrier) AS SELECT a, count(*) AS n FROM $t GROUP BY a",
    "CREATE OR REPLACE VIEW v AS SELECT id, a, $n AS more FROM t",
    "ALTER VIEW v SET (check_option = local)",
    "ALTER VIEW v ALTER COLUMN a SET DEFAULT $n",
    "ALTER VIEW v RENAME COLUMN a TO $x",
    "ALTER VIEW v OWNER TO $r",
    "DROP VIEW v",
    "CREATE MATERIALIZED VIEW $x AS SELECT a, b FROM $t",
    "ALTER MATERIALIZED VIEW mv ALTER COLUMN b SET STATISTICS $n",
    "ALTER MATERIALIZED VIEW mv DEPENDS ON EXTENSION plpgsql",
    "DROP MATERIALIZED VIEW mv",
    "CREATE RULE $x AS ON UPDATE TO $t DO ALSO NOTIFY changed",
    "ALTER TABLE s.u DISABLE RULE ru",
    "DROP RULE ru ON s.u",
    "CREATE TRIGGER $x BEFORE UPDATE OF a ON $t FOR EACH ROW WHEN (NEW.a > $n) EXECUTE FUNCTION touch('$n')",
    "CREATE CONSTRAINT TRIGGER $x AFTER INSERT ON t DEFERRABLE FOR EACH ROW EXECUTE FUNCTION touch()",
    "ALTER TABLE t DISABLE TRIGGER tr",
    "ALTER TABLE parted_1 ENABLE ALWAYS TRIGGER tr",
    "ALTER TABLE parted DISABLE TRIGGER tr",
    "ALTER TRIGGER tr ON t RENAME TO $x",
    "ALTER TRIGGER tr ON t DEPENDS ON EXTENSION plpgsql",
    "DROP TRIGGER tr ON t",
    "CREATE POLICY $x ON $t AS RESTRICTIVE FOR UPDATE TO $r USING (a > $n) WITH CHECK (a < $n)",
    "ALTER POLICY p ON t TO $r",
    "ALTER POLICY p ON t USING (id > $n)",
    "DROP POLICY p ON t",
    // Sequences.
    "CREATE SEQUENCE $x INCREMENT $n CYCLE",
    "CREATE SEQUENCE s.$x AS smallint OWNED BY s.u.id",
    "ALTER SEQUENCE seq MAXVALUE $n000 CACHE $n",
    "ALTER SEQUENCE seq OWNED BY t.id",
    "ALTER SEQUENCE seq SET LOGGED",
    "ALTER SEQUENCE owned OWNED BY NONE",
    "DROP SEQUENCE seq",
    // Types.
    "CREATE TYPE $x AS ENUM ('one', 'two', 'it''s')",
    "CREATE TYPE $x AS (a int, b text COLLATE \"C\")",
    "CREATE TYPE $x AS RANGE (SUBTYPE = text, COLLATION = \"C\")",
    "CREATE TYPE $x",
    "CREATE DOMAIN $x AS text COLLATE \"C\" DEFAULT '$n' CHECK (length(VALUE) < $n)",
    "ALTER TYPE mood ADD VALUE 'v$n'",
    "ALTER TYPE mood ADD VALUE 'w$n' BEFORE 'ok'",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'low'",
    "ALTER TYPE pair ADD ATTRIBUTE $x int",
    "ALTER TYPE pair ALTER ATTRIBUTE b TYPE varchar($n)",
    "ALTER TYPE pair RENAME ATTRIBUTE a TO $x",
    "ALTER TYPE span OWNER TO $r",
    "ALTER DOMAIN positive ADD CONSTRAINT $x CHECK (VALUE < $n000)",
    "ALTER DOMAIN positive ADD CONSTRAINT $x CHECK (VALUE < $n000) NOT VALID",
    "ALTER DOMAIN positive SET DEFAULT $n",
    "ALTER DOMAIN positive SET NOT NULL",
    "ALTER TYPE pair SET SCHEMA s",
    "DROP TYPE mood CASCADE",
    "DROP DOMAIN positive CASCADE",
    // Functions.
    "CREATE FUNCTION $x(a int, OUT b text) LANGUAGE sql AS 'SELECT $n::text'",
    "CREATE FUNCTION s.$x(VARIADIC v text[]) RETURNS SETOF int LANGUAGE sql ROWS $n AS 'SELECT $n'",
    "CREATE FUNCTION $x(m mood, p pair) RETURNS TABLE (x int, y text) LANGUAGE plpgsql SECURITY DEFINER SET work_mem = '$nMB' AS 'BEGIN END'",
    "CREATE FUNCTION $x() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT $n; END",
    "CREATE OR REPLACE FUNCTION f(a int, b text DEFAULT 'y') RETURNS int LANGUAGE sql AS 'SELECT a + $n'",
    "ALTER FUNCTION f(int, text) STABLE STRICT COST $n",
    "ALTER FUNCTION f(int, text) SET search_path = s, public",
    "ALTER FUNCTION f(int, text) OWNER TO $r",
    "ALTER FUNCTION f(int, text) DEPENDS ON EXTENSION plpgsql",
    "ALTER FUNCTION f(int, text) RENAME TO $x",
    "DROP FUNCTION f",
    "CREATE PROCEDURE $x(INOUT a int) LANGUAGE plpgsql AS 'BEGIN a := $n; END'",
    "ALTER PROCEDURE pr SECURITY DEFINER",
    "DROP PROCEDURE pr",
    "CREATE AGGREGATE $x (int) (SFUNC = int4pl, STYPE = int, INITCOND = '$n', PARALLEL = SAFE)",
    "CREATE OR REPLACE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int, SSPACE = $n)",
    "CREATE OR REPLACE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int, MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int, MSSPACE = $n)",
    "CREATE OR REPLACE AGGREGATE total (some int) (SFUNC = int4pl, STYPE = int, FINALFUNC = int4abs, FINALFUNC_MODIFY = SHAREABLE, MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int, MFINALFUNC = int4abs, MFINALFUNC_MODIFY = READ_WRITE)",
    "DROP AGGREGATE total (int)",
    // Operators, casts, collations, conversions.
    "CREATE OPERATOR ==> (LEFTARG = int, RIGHTARG = int, FUNCTION = same, COMMUTATOR = ==>, HASHES)",
    "CREATE OPERATOR s.!! (RIGHTARG = int, FUNCTION = int4abs)",
    "ALTER OPERATOR === (int, int) SET (RESTRICT = eqsel, JOIN = eqjoinsel)",
    "ALTER OPERATOR === (int, int) OWNER TO $r",
    "DROP OPERATOR === (int, int) CASCADE",
    "CREATE OPERATOR CLASS $x FOR TYPE text USING btree AS OPERATOR 3 =, FUNCTION 1 bttextcmp(text, text)",
    "CREATE OPERATOR CLASS $x FOR TYPE int USING btree FAMILY fam AS OPERATOR 1 <",
    "CREATE OPERATOR FAMILY $x USING hash",
    "ALTER OPERATOR FAMILY fam USING btree ADD OPERATOR 5 > (int, int)",
    "ALTER OPERATOR FAMILY fam USING btree ADD FUNCTION 1 (int, bigint) btint48cmp(int, bigint)",
    "ALTER OPERATOR FAMILY fam USING btree OWNER TO $r",
    "ALTER OPERATOR CLASS oc USING btree RENAME TO $x",
    "DROP OPERATOR CLASS oc USING btree",
    "DROP OPERATOR FAMILY fam USING btree CASCADE",
    "CREATE CAST (int AS mood) WITH INOUT AS ASSIGNMENT",
    "CREATE CAST (pair AS text) WITH INOUT AS IMPLICIT",
    "DROP CAST (mood AS int)",
    "DROP CAST (mood AS int); CREATE CAST (mood AS int) WITH INOUT",
    "CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal))",
    "CREATE COLLATION $x (PROVIDER = icu, LOCALE = 'de', DETERMINISTIC = false)",
    "ALTER COLLATION co OWNER TO $r",
    "DROP COLLATION co",
    "CREATE DEFAULT CONVERSION $x FOR 'LATIN2' TO 'UTF8' FROM iso8859_to_utf8",
    "ALTER CONVERSION cv OWNER TO $r",
    "DROP CONVERSION cv",
    // Text search.
    "CREATE TEXT SEARCH CONFIGURATION $x (COPY = english)",
    "ALTER TEXT SEARCH CONFIGURATION tc ALTER MAPPING FOR word WITH td, simple",
    "ALTER TEXT SEARCH CONFIGURATION tc DROP MAPPING IF EXISTS FOR email",
    "DROP TEXT SEARCH CONFIGURATION tc",
    "CREATE TEXT SEARCH DICTIONARY $x (TEMPLATE = snowball, LANGUAGE = german)",
    "ALTER TEXT SEARCH DICTIONARY td (ACCEPT = false)",
    "DROP TEXT SEARCH DICTIONARY td CASCADE",
    "ALTER TEXT SEARCH PARSER tp RENAME TO $x",
    "DROP TEXT SEARCH PARSER tp",
    "ALTER TEXT SEARCH TEMPLATE tt SET SCHEMA s",
    "CREATE TEXT SEARCH TEMPLATE $x (LEXIZE = dsimple_lexize)",
    // Foreign data.
    "CREATE FOREIGN DATA WRAPPER $x OPTIONS (a '$n')",
    "ALTER FOREIGN DATA WRAPPER w OPTIONS (SET o '$n')",
    "DROP FOREIGN DATA WRAPPER w CASCADE",
    "CREATE SERVER $x FOREIGN DATA WRAPPER w OPTIONS (host 'h$n')",
    "ALTER SERVER srv VERSION '$n'",
    "ALTER SERVER srv OPTIONS (ADD port '$n')",
    "ALTER SERVER srv OWNER TO $r",
    "CREATE USER MAPPING FOR $r SERVER srv OPTIONS (user 'u$n')",
    "CREATE USER MAPPING FOR PUBLIC SERVER srv",
    "DROP USER MAPPING FOR someone SERVER srv",
    "CREATE FOREIGN TABLE $x (a int OPTIONS (col '$n') NOT NULL, b text) SERVER srv OPTIONS (tab 't$n')",
    "ALTER FOREIGN TABLE ft ADD COLUMN $x int DEFAULT $n",
    "ALTER FOREIGN TABLE ft ALTER COLUMN a OPTIONS (ADD col '$n')",
    "ALTER FOREIGN TABLE ft ADD CONSTRAINT $x CHECK (a > $n)",
    "ALTER FOREIGN TABLE ft OPTIONS (ADD tab '$n')",
    "DROP FOREIGN TABLE ft",
    // Event triggers, publications.
    "CREATE EVENT TRIGGER $x ON sql_drop WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION ev()",
    "ALTER EVENT TRIGGER et DISABLE",
    "ALTER EVENT TRIGGER et RENAME TO $x",
    "DROP EVENT TRIGGER et",
    "CREATE PUBLICATION $x FOR ALL TABLES WITH (publish = 'insert')",
    "CREATE PUBLICATION $x FOR TABLE $t (id, a) WHERE (id > $n)",
    "ALTER PUBLICATION pu ADD TABLE base",
    "ALTER PUBLICATION pu SET TABLE t WHERE (id > $n)",
    "ALTER PUBLICATION pu ADD TABLES IN SCHEMA \"S2\"",
    "ALTER PUBLICATION pu SET (publish_via_partition_root)",
    "DROP PUBLICATION pu",
    // Rights.
    "GRANT SELECT, INSERT ON $t TO $r",
    "GRANT UPDATE (a), REFERENCES (b) ON $t TO $r",
    "GRANT ALL ON $t TO $r WITH GRANT OPTION",
    "REVOKE ALL ON $t FROM someone",
    "REVOKE DELETE ON $t FROM postgres",
    "GRANT SELECT ON v, mv TO PUBLIC",
    "GRANT EXECUTE ON FUNCTION f TO $r",
    "GRANT USAGE ON SEQUENCE seq TO $r",
    "GRANT CREATE ON SCHEMA s TO $r",
    "GRANT CREATE ON SCHEMA public TO $r",
    "GRANT USAGE ON TYPE mood TO $r",
    "REVOKE USAGE ON TYPE positive FROM PUBLIC",
    "REVOKE EXECUTE ON FUNCTION total(int) FROM PUBLIC",
    "GRANT USAGE ON FOREIGN DATA WRAPPER w TO $r",
    "GRANT USAGE ON FOREIGN SERVER srv TO $r",
    "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT INSERT ON TABLES TO $r",
    "ALTER DEFAULT PRIVILEGES FOR ROLE $r REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    // Comments.
    "COMMENT ON TABLE $t IS 'number $n'",
    "COMMENT ON COLUMN $t.$c IS 'number $n'",
    "COMMENT ON TABLE t IS NULL",
    "COMMENT ON CONSTRAINT t_pkey ON t IS 'number $n'",
    "COMMENT ON CONSTRAINT positive_check ON DOMAIN positive IS 'number $n'",
    "COMMENT ON FUNCTION f IS 'number $n'",
    "COMMENT ON TRIGGER tr ON t IS 'number $n'",
    "COMMENT ON OPERATOR === (int, int) IS 'number $n'",
    "COMMENT ON OPERATOR CLASS oc USING btree IS 'number $n'",
    "COMMENT ON TYPE mood IS 'number $n'",
    "COMMENT ON SERVER srv IS 'number $n'",
    "COMMENT ON SCHEMA s IS 'number $n'",
    "COMMENT ON INDEX t_a IS 'number $n'",
    "COMMENT ON TEXT SEARCH CONFIGURATION tc IS 'number $n'",
];

//! What fork_diff_schema does not compare, and why.

/// Objects of the kinds that the set-up of the list of changes has none of.
pub const SET_UP: &str = "
    CREATE EXTENSION pg_fork; CREATE EXTENSION amcheck;
    CREATE DEFAULT CONVERSION old_conversion FOR 'LATIN2' TO 'UTF8' FROM iso8859_to_utf8;
    CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq, COMMUTATOR = ===, NEGATOR = !==, RESTRICT = eqsel, JOIN = eqjoinsel);
    ALTER OPERATOR FAMILY old_family USING btree ADD OPERATOR 1 < (int, int), FUNCTION 1 (int, int) btint4cmp(int, int);
    CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal));
    CREATE TRUSTED LANGUAGE old_language HANDLER plpgsql_call_handler INLINE plpgsql_inline_handler VALIDATOR plpgsql_validator;
    CREATE ACCESS METHOD old_method TYPE TABLE HANDLER heap_tableam_handler;
    CREATE TEXT SEARCH PARSER old_parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
    CREATE TEXT SEARCH TEMPLATE old_template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
    CREATE TYPE old_range AS RANGE (SUBTYPE = text, COLLATION = \"C\");
    CREATE TABLE parent (id int PRIMARY KEY, more int UNIQUE DEFERRABLE); CREATE TABLE child (id int REFERENCES parent, a int CHECK (a > 0)) WITH (fillfactor = 80);
    CREATE TABLE kid (own int DEFAULT 2) INHERITS (gone);
    CREATE PUBLICATION old_schema FOR TABLES IN SCHEMA s; CREATE PUBLICATION old_part FOR TABLE t (id, name) WHERE (id > 1);
    ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO someone;
    COMMENT ON TABLE t IS 'x'; COMMENT ON COLUMN t.name IS 'y'; COMMENT ON LARGE OBJECT 700001 IS 'z';
    CREATE TRIGGER second AFTER UPDATE OF name ON t FOR EACH ROW WHEN (NEW.id > 1) EXECUTE FUNCTION touch('x');
    CREATE DOMAIN one AS int DEFAULT 1; CREATE DOMAIN two AS int DEFAULT 2;
    CREATE TEXT SEARCH CONFIGURATION bare (PARSER = pg_catalog.\"default\");
    CREATE CONSTRAINT TRIGGER third AFTER INSERT ON old FROM t DEFERRABLE FOR EACH ROW EXECUTE FUNCTION touch();
    CREATE FUNCTION atomic(a int DEFAULT 3, OUT b int, OUT c int) LANGUAGE sql SET work_mem = '1MB' BEGIN ATOMIC SELECT a, a; END;
    CREATE POLICY second ON t FOR UPDATE TO someone USING (id > 1) WITH CHECK (id > 2);
    CREATE FUNCTION pair_text(pair) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT 1::text'; CREATE CAST (pair AS text) WITH FUNCTION pair_text(pair);
    CREATE TABLE set_null (a int REFERENCES parent ON DELETE SET NULL (a), b int, r int4range, EXCLUDE USING gist (r WITH &&));
    CREATE INDEX part ON t (lower(name)) WHERE id > 1; CREATE INDEX other_part ON t (upper(name)) WHERE id > 2;
    CREATE TABLE by_list (a text, b int) PARTITION BY LIST (lower(a)); CREATE TABLE by_other (a text, b int) PARTITION BY LIST (upper(a)); CREATE TABLE by_hash (a int, b int) PARTITION BY HASH (b);
    CREATE OPERATOR CLASS mood_class FOR TYPE mood USING hash AS OPERATOR 1 = (anyenum, anyenum), FUNCTION 1 hashenum(anyenum);
    CREATE TABLE heir () INHERITS (child);
    CREATE FOREIGN DATA WRAPPER second_wrapper; CREATE SERVER second_server FOREIGN DATA WRAPPER second_wrapper;
    SET allow_system_table_mods = on; UPDATE pg_extension SET extconfig = ARRAY['own.rate'::regclass::oid], extcondition = '{\"\"}' WHERE extname = 'lo';
    INSERT INTO pg_seclabel VALUES ('t'::regclass, 'pg_class'::regclass, 0, 'some', 'label');
    CREATE STATISTICS old_expression ON (id + 1), name FROM t;";

/// Catalogs of which nothing is compared.
pub const CATALOGS: &[(&str, &str)] = &[
    ("pg_auth_members", "all databases share it"),
    ("pg_authid", "all databases share it"),
    ("pg_database", "all databases share it; a fork's row is its own from the beginning"),
    ("pg_db_role_setting", "all databases share it"),
    ("pg_parameter_acl", "all databases share it"),
    ("pg_replication_origin", "all databases share it"),
    ("pg_shdepend", "all databases share it"),
    ("pg_shdescription", "all databases share it"),
    ("pg_shseclabel", "all databases share it"),
    ("pg_subscription", "all databases share it"),
    ("pg_tablespace", "all databases share it"),
    ("pg_subscription_rel", "how far subscriptions are, which are no fork's"),
    ("pg_largeobject", "data, which fork_diff counts"),
    ("pg_statistic", "what ANALYZE found"),
    ("pg_statistic_ext_data", "what ANALYZE found"),
    ("pg_depend", "what follows from the definitions; DEPENDS ON EXTENSION, OWNED BY and members have tests of their own"),
    ("pg_init_privs", "what rights are compared with"),
];

/// Columns that are not compared.
pub const COLUMNS: &[(&str, &str)] = &[
    (
        "pg_attribute.attlen pg_attribute.attbyval pg_attribute.attalign pg_type.typlen pg_attribute.attcacheoff pg_attribute.atthasmissing
         pg_attribute.attmissingval pg_attribute.attisdropped pg_attribute.attrelid pg_attribute.attnum pg_attribute.atthasdef",
        "follow from the type, or tell where the values are; a dropped column's row is dropped",
    ),
    (
        "pg_attribute.attndims pg_type.typndims",
        "the server looks at neither",
    ),
    (
        "pg_class.reltype pg_class.relfilenode pg_class.relpages pg_class.reltuples pg_class.relallvisible pg_class.reltoastrelid
         pg_class.relhasindex pg_class.relisshared pg_class.relnatts pg_class.relchecks pg_class.relhasrules pg_class.relhastriggers
         pg_class.relhassubclass pg_class.relrewrite pg_class.relfrozenxid pg_class.relminmxid pg_class.relispartition pg_class.relkind
         pg_class.relpartbound",
        "storage, statistics, and what follows from other rows; bounds, kinds and partitions have tests of their own",
    ),
    (
        "pg_amop.amopmethod pg_amop.amoppurpose pg_constraint.connamespace pg_constraint.conpfeqop pg_constraint.conppeqop
         pg_constraint.conffeqop pg_constraint.conkey pg_index.indnatts pg_index.indnkeyatts pg_index.indrelid pg_index.indexrelid
         pg_index.indimmediate pg_index.indisexclusion pg_index.indisprimary pg_operator.oprkind pg_trigger.tgconstrindid pg_partitioned_table.partrelid
         pg_partitioned_table.partnatts pg_partitioned_table.partdefid pg_proc.provariadic pg_proc.pronargs pg_proc.pronargdefaults",
        "follows from the columns beside it, the family, the table, the constraint or the types",
    ),
    (
        "pg_constraint.conindid",
        "which of some equal indexes a foreign key goes by is the server's choice",
    ),
    (
        "pg_proc.proallargtypes pg_proc.proargmodes",
        "printed with the arguments; one that does not fit the others crashes the server. Functions with OUT have tests of their own",
    ),
    ("pg_index.indcheckxmin", "how old a snapshot must be to use the index"),
    ("pg_inherits.inhseqno pg_ts_config_map.mapseqno", "parents, and dictionaries, are listed in this order"),
    (
        "pg_type.typtype pg_type.typrelid pg_type.typarray",
        "what makes a type another one",
    ),
];

/// Values for columns that none of the general rules fits.
pub const OTHER_VALUES: &[(&str, &str)] = &[
    ("pg_attribute.attcompression", "'p'::\"char\""),
    ("pg_attribute.attidentity", "'a'::\"char\""),
    ("pg_attribute.attgenerated", "'s'::\"char\""),
    ("pg_class.relpersistence", "'u'::\"char\""),
    ("pg_constraint.confupdtype", "'c'::\"char\""),
    ("pg_constraint.confdeltype", "'c'::\"char\""),
    ("pg_constraint.confmatchtype", "'f'::\"char\""),
    ("pg_constraint.confkey", "'{2}'::int2[]"),
    ("pg_constraint.confdelsetcols", "'{2}'::int2[]"),
    (
        "pg_constraint.conexclop",
        "ARRAY['-|-(anyrange,anyrange)'::regoperator::oid]",
    ),
    ("pg_default_acl.defaclobjtype", "'S'::\"char\""),
    ("pg_constraint.contype", "'u'::\"char\""),
    ("pg_extension.extconfig", "ARRAY['t'::regclass::oid]"),
    ("pg_extension.extcondition", "ARRAY['WHERE n > 1']"),
    ("pg_description.classoid", "'pg_type'::regclass"),
    ("pg_enum.enumsortorder", "10 - t.enumsortorder"),
    ("pg_event_trigger.evtenabled", "'D'::\"char\""),
    ("pg_index.indkey", "'3'::int2vector"),
    ("pg_index.indoption", "'3'::int2vector"),
    ("pg_partitioned_table.partstrat", "'h'::\"char\""),
    ("pg_proc.prokind", "'p'::\"char\""),
    ("pg_proc.proargnames", "ARRAY['zz'] || t.proargnames[2:]"),
    ("pg_proc.protrftypes", "ARRAY[23::oid]"),
    ("pg_proc.prosqlbody", "NULL::pg_node_tree"),
    ("pg_publication_rel.prattrs", "'1'::int2vector"),
    ("pg_rewrite.ev_type", "'3'::\"char\""),
    ("pg_rewrite.ev_enabled", "'D'::\"char\""),
    ("pg_seclabel.objoid", "'old'::regclass::oid"),
    ("pg_seclabel.classoid", "'pg_type'::regclass"),
    ("pg_sequence.seqmax", "t.seqmax - 1"),
    ("pg_statistic_ext.stxkind", "'{d}'::\"char\"[]"),
    ("pg_ts_config_map.mapcfg", "'bare'::regconfig"),
    ("pg_trigger.tgenabled", "'D'::\"char\""),
    ("pg_trigger.tgattr", "'1'::int2vector"),
];

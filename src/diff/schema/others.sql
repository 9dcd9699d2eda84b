  UNION ALL
    SELECT 'pg_foreign_data_wrapper'::regclass, f.oid, 0, concat_ws(' ', 'HANDLER ' || nullif(f.fdwhandler, 0)::regprocedure, 'VALIDATOR ' || nullif(f.fdwvalidator, 0)::regprocedure,
           'OPTIONS (' || (SELECT string_agg(CASE WHEN o ~* '^[^=]*(pass|secret|token)' THEN split_part(o, '=', 1) || '=(hidden)' ELSE o END, ', ' ORDER BY o) FROM unnest(f.fdwoptions) o) || ')', 'OWNER TO ' || f.fdwowner::regrole), f.fdwoptions::text
    FROM pg_foreign_data_wrapper f
  UNION ALL
    SELECT 'pg_foreign_server'::regclass, s.oid, 0, concat_ws(' ', 'FOREIGN DATA WRAPPER', (pg_identify_object('pg_foreign_data_wrapper'::regclass, s.srvfdw, 0)).identity,
           'TYPE ' || quote_literal(s.srvtype), 'VERSION ' || quote_literal(s.srvversion),
           'OPTIONS (' || (SELECT string_agg(CASE WHEN o ~* '^[^=]*(pass|secret|token)' THEN split_part(o, '=', 1) || '=(hidden)' ELSE o END, ', ' ORDER BY o) FROM unnest(s.srvoptions) o) || ')', 'OWNER TO ' || s.srvowner::regrole), s.srvoptions::text
    FROM pg_foreign_server s
  UNION ALL -- their options are not shown, and null for those without the rights
    SELECT 'pg_user_mapping'::regclass, u.umid, 0, concat_ws(' ', 'USER MAPPING FOR', CASE u.umuser WHEN 0 THEN 'PUBLIC' ELSE u.umuser::regrole::text END, 'SERVER', quote_ident(u.srvname)), u.umoptions::text
    FROM pg_user_mappings u
  UNION ALL
    SELECT 'pg_publication'::regclass, p.oid, 0, concat_ws(' ', CASE WHEN p.puballtables THEN 'FOR ALL TABLES' END, 'PUBLISH',
           concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END, CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END),
           CASE WHEN p.pubviaroot THEN 'VIA ROOT' END, 'OWNER TO ' || p.pubowner::regrole), NULL
    FROM pg_publication p
  UNION ALL
    SELECT 'pg_publication_rel'::regclass, p.oid, 0, concat_ws(' ', p.prrelid::regclass,
           '(' || (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = p.prrelid AND a.attnum = ANY (p.prattrs)) || ')',
           'WHERE (' || pg_get_expr(p.prqual, p.prrelid) || ')'), NULL
    FROM pg_publication_rel p
  UNION ALL
    SELECT 'pg_publication_namespace'::regclass, p.oid, 0, 'TABLES IN SCHEMA ' || p.pnnspid::regnamespace, NULL FROM pg_publication_namespace p
  UNION ALL
    SELECT 'pg_largeobject'::regclass, l.oid, 0, 'LARGE OBJECT OWNER TO ' || l.lomowner::regrole, NULL
    FROM pg_largeobject_metadata l WHERE l.oid::bigint / 4096 = ANY (:large_objects)
  UNION ALL
    SELECT 'pg_default_acl'::regclass, d.oid, 0, coalesce(
           (SELECT string_agg(format('GRANT %s TO %s', g.privileges, g.grantee), '; ' ORDER BY g.grantee) FROM
               (SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
                       string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, ', ' ORDER BY a.privilege_type) AS privileges
                FROM aclexplode(d.defaclacl) a GROUP BY a.grantee) g), 'REVOKE ALL'), NULL
    FROM pg_default_acl d

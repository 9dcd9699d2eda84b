), acl (class, oid, sub, owner, acl, usual) AS (
    SELECT 'pg_class'::regclass, c.oid, 0, c.relowner, c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)
    FROM pg_class c JOIN ns ON ns.oid = c.relnamespace WHERE c.relpersistence <> 't'
  UNION ALL
    SELECT 'pg_class'::regclass, a.attrelid, a.attnum, c.relowner, a.attacl, acldefault('c', c.relowner)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN ns ON ns.oid = c.relnamespace WHERE NOT a.attisdropped AND a.attacl IS NOT NULL
  UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, 0, p.proowner, p.proacl, acldefault('f', p.proowner) FROM pg_proc p
  UNION ALL
    SELECT 'pg_namespace'::regclass, n.oid, 0, n.nspowner, n.nspacl, acldefault('n', n.nspowner) FROM pg_namespace n
    WHERE n.nspname !~ '^pg_(toast|temp)'
  UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 0, t.typowner, t.typacl, acldefault('T', t.typowner) FROM pg_type t
  UNION ALL
    SELECT 'pg_language'::regclass, l.oid, 0, l.lanowner, l.lanacl, acldefault('l', l.lanowner) FROM pg_language l
  UNION ALL
    SELECT 'pg_foreign_data_wrapper'::regclass, f.oid, 0, f.fdwowner, f.fdwacl, acldefault('F', f.fdwowner) FROM pg_foreign_data_wrapper f
  UNION ALL
    SELECT 'pg_foreign_server'::regclass, s.oid, 0, s.srvowner, s.srvacl, acldefault('S', s.srvowner) FROM pg_foreign_server s
  UNION ALL
    SELECT 'pg_largeobject'::regclass, l.oid, 0, l.lomowner, l.lomacl, acldefault('L', l.lomowner)
    FROM pg_largeobject_metadata l WHERE l.oid::bigint / 4096 = ANY (:large_objects)
), privilege AS ( -- what differs from the rights that the object came with
    SELECT a.class, a.oid, a.sub, g.grantee, g.granted
    FROM acl a LEFT JOIN pg_init_privs i ON i.classoid = a.class AND i.objoid = a.oid AND i.objsubid = a.sub
    CROSS JOIN LATERAL (
        SELECT coalesce(is_now.grantee, was.grantee) AS grantee, is_now.privileges AS granted
        FROM (SELECT e.grantee, string_agg(e.privilege_type || CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
                  || CASE WHEN e.grantor <> a.owner THEN ' GRANTED BY ' || e.grantor::regrole ELSE '' END, ', ' ORDER BY e.privilege_type, e.grantor) AS privileges
              FROM aclexplode(coalesce(a.acl, a.usual)) e GROUP BY e.grantee) is_now
        FULL JOIN (SELECT e.grantee, string_agg(e.privilege_type || CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, ', ' ORDER BY e.privilege_type, e.grantor) AS privileges
              FROM aclexplode(coalesce(i.initprivs, a.usual)) e GROUP BY e.grantee) was USING (grantee)
        WHERE is_now.privileges IS DISTINCT FROM was.privileges) g
    WHERE a.acl IS NOT NULL OR i.initprivs IS NOT NULL
), told (prefix, class, oid, sub, text, unseen) AS (
    SELECT '', o.class, o.oid, o.sub, concat_ws(' ', o.text, 'DEPENDS ON EXTENSION ' || n.extensions, 'MEMBER OF EXTENSION ' || m.extension), o.unseen
    FROM object o LEFT JOIN needed n ON n.classid = o.class AND n.objid = o.oid AND o.sub = 0
    LEFT JOIN member m ON m.classid = o.class AND m.objid = o.oid AND o.sub = 0
  UNION ALL -- of which a column that went and came again is a change
    SELECT 'order of columns of ', 'pg_class'::regclass, c.oid, 0, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum), NULL
    FROM rel c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND NOT a.attisdropped GROUP BY c.oid
  UNION ALL
    SELECT 'rights of ' || CASE p.grantee WHEN 0 THEN 'PUBLIC' ELSE p.grantee::regrole::text END || ' on ', p.class, p.oid, p.sub,
           coalesce('GRANT ' || p.granted, 'REVOKE ALL'), NULL
    FROM privilege p
  UNION ALL
    SELECT 'comment on ', d.classoid::regclass, d.objoid, d.objsubid, d.description, NULL FROM pg_description d
    WHERE CASE d.classoid WHEN 'pg_largeobject'::regclass THEN d.objoid::bigint / 4096 = ANY (:large_objects)
          ELSE d.objoid >= :pg_description OR d.objoid = 'public'::regnamespace END
  UNION ALL
    SELECT 'security label of ' || quote_ident(s.provider) || ' on ', s.classoid::regclass, s.objoid, s.objsubid, s.label, NULL FROM pg_seclabel s
    WHERE CASE s.classoid WHEN 'pg_largeobject'::regclass THEN s.objoid::bigint / 4096 = ANY (:large_objects) ELSE true END
)
SELECT t.prefix || i.type || ' ' || i.identity, t.text, h.extension, t.unseen
FROM told t LEFT JOIN home h ON h.classid = t.class AND h.objid = t.oid AND t.prefix !~ '^(rights|security)'
CROSS JOIN LATERAL pg_identify_object(t.class, t.oid, t.sub) i
WHERE i.identity IS NOT NULL AND coalesce(i.schema !~ '^pg_(toast|temp)', true)
  AND NOT EXISTS (SELECT FROM passing p WHERE p.classid = t.class AND p.objid = t.oid)

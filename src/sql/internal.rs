//! The schema of functions that only pg_fork itself calls: nobody else has rights in it.

use pgrx::prelude::*;

extension_sql!(
    r#"
CREATE SCHEMA fork_internal;
REVOKE ALL ON SCHEMA fork_internal FROM PUBLIC;
COMMENT ON SCHEMA fork_internal IS 'pg_fork''s own functions, not to be called';
"#,
    name = "fork_internal_schema",
    bootstrap
);

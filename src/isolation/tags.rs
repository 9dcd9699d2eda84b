//! Statements that are the database's own business, whatever they say.
//!
//! A statement that is neither here nor looked at in `statements` is refused, so that what a new version
//! brings is looked at first. A test compares both with the server's header.

use pgrx::pg_sys::NodeTag::{self, *};

/// Whether a utility statement with this tag may run in a fork without being looked at.
pub fn are_own(tag: NodeTag) -> bool {
    is_of_the_session(tag) || is_of_a_table(tag) || is_of_an_object(tag)
}

/// Transactions, cursors, prepared statements, settings, messages: of the session, or within its database.
fn is_of_the_session(tag: NodeTag) -> bool {
    matches!(
        tag,
        T_TransactionStmt
            | T_DeclareCursorStmt
            | T_FetchStmt
            | T_ClosePortalStmt
            | T_PrepareStmt
            | T_ExecuteStmt
            | T_DeallocateStmt
            | T_VariableSetStmt
            | T_VariableShowStmt
            | T_DiscardStmt
            | T_ConstraintsSetStmt
            | T_NotifyStmt
            | T_ListenStmt
            | T_UnlistenStmt
            // It changes nothing, and takes what reading takes: the server's time.
            | T_CheckPointStmt
            // Into this process only, and from plugins/ only for ordinary roles.
            | T_LoadStmt
            // What they run comes to the executor's hook, or to this one.
            | T_CallStmt
            | T_ExplainStmt
    )
}

/// Tables, and what hangs on them.
fn is_of_a_table(tag: NodeTag) -> bool {
    matches!(
        tag,
        T_CreateStmt
            | T_CreateTableAsStmt
            | T_RefreshMatViewStmt
            | T_CreateForeignTableStmt
            | T_AlterTableStmt
            | T_AlterTableMoveAllStmt
            // Functions tell of it: it is for TRUNCATE of child tables too.
            | T_TruncateStmt
            // Those of shared catalogs cannot be clustered.
            | T_ClusterStmt
            | T_IndexStmt
            | T_CreateSeqStmt
            | T_AlterSeqStmt
            | T_ViewStmt
            | T_RuleStmt
            | T_CreateTrigStmt
            | T_CreatePolicyStmt
            | T_AlterPolicyStmt
            | T_CreateStatsStmt
            | T_AlterStatsStmt
            | T_CreatePublicationStmt
            | T_AlterPublicationStmt
    )
}

/// Other objects of one database.
fn is_of_an_object(tag: NodeTag) -> bool {
    matches!(
        tag,
        T_CreateSchemaStmt
            | T_DropStmt
            | T_AlterObjectSchemaStmt
            | T_AlterObjectDependsStmt
            | T_AlterDefaultPrivilegesStmt
            | T_CreateExtensionStmt
            | T_AlterExtensionStmt
            | T_AlterExtensionContentsStmt
            | T_AlterFunctionStmt
            | T_DefineStmt
            | T_CompositeTypeStmt
            | T_CreateEnumStmt
            | T_CreateRangeStmt
            | T_CreateDomainStmt
            | T_AlterEnumStmt
            | T_AlterDomainStmt
            | T_AlterTypeStmt
            | T_CreateCastStmt
            | T_CreateConversionStmt
            | T_CreateTransformStmt
            | T_CreateOpClassStmt
            | T_CreateOpFamilyStmt
            | T_AlterOpFamilyStmt
            | T_AlterOperatorStmt
            | T_AlterCollationStmt
            | T_AlterTSConfigurationStmt
            | T_AlterTSDictionaryStmt
            | T_CreateAmStmt
            | T_CreateEventTrigStmt
            | T_AlterEventTrigStmt
            | T_CreateFdwStmt
            | T_AlterFdwStmt
            | T_CreateForeignServerStmt
            | T_AlterForeignServerStmt
            | T_CreateUserMappingStmt
            | T_AlterUserMappingStmt
            | T_DropUserMappingStmt
            | T_ImportForeignSchemaStmt
    )
}

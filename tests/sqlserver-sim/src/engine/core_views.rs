//! Catalogue views over the core tables of a database.

/// Views over the core tables: (columns, FROM …).
pub(crate) fn catalogue(name: &str) -> Option<(&'static str, &'static str)> {
    const OBJECT: &str = "name sysname o.name
        object_id int o.object_id
        principal_id int NULL
        schema_id int o.schema_id
        parent_object_id int o.parent
        type char(2) substr(o.type || ' ', 1, 2)
        type_desc nvarchar(60) CASE o.type WHEN 'U' THEN 'USER_TABLE' WHEN 'V' THEN 'VIEW' WHEN 'P' THEN 'SQL_STORED_PROCEDURE' WHEN 'IF' THEN 'SQL_INLINE_TABLE_VALUED_FUNCTION' WHEN 'F' THEN 'FOREIGN_KEY_CONSTRAINT' WHEN 'C' THEN 'CHECK_CONSTRAINT' WHEN 'PK' THEN 'PRIMARY_KEY_CONSTRAINT' ELSE 'UNIQUE_CONSTRAINT' END
        create_date datetime o.created
        modify_date datetime o.modified
        is_ms_shipped bit o.shipped";
    const TABLE: &str = "name sysname o.name
        object_id int o.object_id
        principal_id int NULL
        schema_id int o.schema_id
        parent_object_id int 0
        type char(2) 'U '
        type_desc nvarchar(60) 'USER_TABLE'
        create_date datetime o.created
        modify_date datetime o.modified
        is_ms_shipped bit o.shipped
        is_tracked_by_cdc bit o.cdc
        is_replicated bit 0
        is_memory_optimized bit 0
        is_external bit 0
        is_filetable bit 0
        is_node bit 0
        is_edge bit 0
        temporal_type tinyint 0
        temporal_type_desc nvarchar(60) 'NON_TEMPORAL_TABLE'
        lob_data_space_id int 0
        text_in_row_limit int 0
        large_value_types_out_of_row bit 0
        max_column_id_used int (SELECT max(column_id) FROM core_columns c WHERE c.object_id = o.object_id)
        lock_escalation tinyint 0";
    const COLUMN: &str = "object_id int c.object_id
        name sysname c.name
        column_id int c.column_id
        system_type_id tinyint t.system_type_id
        user_type_id int t.user_type_id
        max_length smallint t.max_length
        precision tinyint t.precision
        scale tinyint t.scale
        collation_name sysname t.collation
        is_nullable bit c.nullable
        is_ansi_padded bit 1
        is_rowguidcol bit 0
        is_identity bit c.seed IS NOT NULL
        is_computed bit c.computed IS NOT NULL
        is_filestream bit 0
        is_replicated bit 0
        is_xml_document bit 0
        is_sparse bit 0
        is_column_set bit 0
        generated_always_type tinyint 0
        is_hidden bit 0
        is_masked bit 0
        encryption_type int NULL
        default_object_id int 0";
    const COLUMN_FROM: &str = "core_columns c JOIN core_objects o ON o.object_id = c.object_id JOIN core_types t ON t.code = c.type WHERE o.type IN ('U', 'V') AND {visible}";
    Some(match name {
        "sys.schemas" => ("name sysname s.name\nschema_id int s.schema_id\nprincipal_id int 1", "core_schemas s"),
        "sys.objects" | "sys.all_objects" => (OBJECT, "core_objects o WHERE {visible}"),
        "sys.tables" => (TABLE, "core_objects o WHERE o.type = 'U' AND {visible}"),
        "sys.views" => (OBJECT, "core_objects o WHERE o.type = 'V' AND {visible}"),
        "sys.procedures" => (OBJECT, "core_objects o WHERE o.type = 'P' AND {visible}"),
        // The compatibility view of "sys.sysobjects": the low four bits of sysstat say what it is.
        "sys.sysobjects" | "dbo.sysobjects" => (
            "name sysname o.name
            id int o.object_id
            xtype char(2) substr(o.type || ' ', 1, 2)
            uid smallint o.schema_id
            parent_obj int o.parent
            crdate datetime o.created
            sysstat smallint CASE o.type WHEN 'U' THEN 3 WHEN 'V' THEN 2 WHEN 'P' THEN 4 ELSE 0 END
            type char(2) substr(o.type || ' ', 1, 2)",
            "core_objects o WHERE {visible}",
        ),
        "sys.columns" | "sys.all_columns" => (COLUMN, COLUMN_FROM),
        "sys.computed_columns" => (
            "object_id int c.object_id
            name sysname c.name
            column_id int c.column_id
            definition nvarchar(max) c.computed
            is_persisted bit c.persisted
            is_nullable bit c.nullable",
            "core_columns c JOIN core_objects o ON o.object_id = c.object_id WHERE c.computed IS NOT NULL AND {visible}",
        ),
        "sys.identity_columns" => (
            "object_id int c.object_id
            name sysname c.name
            column_id int c.column_id
            seed_value sql_variant NULL
            increment_value sql_variant NULL
            is_not_for_replication bit 0",
            "core_columns c JOIN core_objects o ON o.object_id = c.object_id WHERE c.seed IS NOT NULL AND {visible}",
        ),
        "sys.indexes" => (
            "object_id int i.object_id
            name sysname i.name
            index_id int i.index_id
            type tinyint CASE WHEN i.clustered THEN 1 ELSE 2 END
            type_desc nvarchar(60) CASE WHEN i.clustered THEN 'CLUSTERED' ELSE 'NONCLUSTERED' END
            is_unique bit i.is_unique
            data_space_id int 1
            ignore_dup_key bit 0
            is_primary_key bit i.is_primary
            is_unique_constraint bit i.is_constraint AND NOT i.is_primary
            fill_factor tinyint 0
            is_disabled bit 0
            is_hypothetical bit 0
            has_filter bit 0
            filter_definition nvarchar(max) NULL",
            "(SELECT object_id, name, index_id, clustered, is_unique, is_primary, is_constraint FROM core_indexes UNION ALL \
             SELECT object_id, NULL, 0, 0, 0, 0, 0 FROM core_objects WHERE type = 'U' AND object_id NOT IN (SELECT object_id FROM core_indexes WHERE clustered)) i \
             JOIN core_objects o ON o.object_id = i.object_id WHERE {visible}",
        ),
        "sys.index_columns" => (
            "object_id int i.object_id
            index_id int i.index_id
            index_column_id int i.position
            column_id int i.column_id
            key_ordinal tinyint CASE WHEN i.included THEN 0 ELSE i.position END
            partition_ordinal tinyint 0
            is_descending_key bit i.descending
            is_included_column bit i.included",
            "core_index_columns i JOIN core_objects o ON o.object_id = i.object_id WHERE {visible}",
        ),
        "sys.key_constraints" => (
            "name sysname i.name
            object_id int i.object_id + i.index_id
            schema_id int o.schema_id
            parent_object_id int o.object_id
            type char(2) CASE WHEN i.is_primary THEN 'PK' ELSE 'UQ' END
            type_desc nvarchar(60) CASE WHEN i.is_primary THEN 'PRIMARY_KEY_CONSTRAINT' ELSE 'UNIQUE_CONSTRAINT' END
            unique_index_id int i.index_id
            is_enforced bit 1",
            "core_indexes i JOIN core_objects o ON o.object_id = i.object_id WHERE i.is_constraint AND {visible}",
        ),
        "sys.foreign_keys" => (
            "name sysname k.name
            object_id int f.object_id
            schema_id int o.schema_id
            parent_object_id int f.parent
            type char(2) 'F '
            referenced_object_id int f.referenced
            key_index_id int f.key_index
            is_disabled bit f.disabled
            is_not_trusted bit f.disabled
            is_not_for_replication bit 0
            delete_referential_action tinyint CASE f.on_delete WHEN 'CASCADE' THEN 1 WHEN 'SET_NULL' THEN 2 ELSE 0 END
            delete_referential_action_desc nvarchar(60) f.on_delete
            update_referential_action tinyint CASE f.on_update WHEN 'CASCADE' THEN 1 WHEN 'SET_NULL' THEN 2 ELSE 0 END
            update_referential_action_desc nvarchar(60) f.on_update",
            "core_fks f JOIN core_objects o ON o.object_id = f.parent JOIN core_objects k ON k.object_id = f.object_id WHERE {visible}",
        ),
        "sys.foreign_key_columns" => (
            "constraint_object_id int f.object_id
            constraint_column_id int k.position
            parent_object_id int f.parent
            parent_column_id int k.parent_column
            referenced_object_id int f.referenced
            referenced_column_id int k.referenced_column",
            "core_fk_columns k JOIN core_fks f ON f.object_id = k.fk JOIN core_objects o ON o.object_id = f.parent WHERE {visible}",
        ),
        "sys.check_constraints" => (
            "name sysname k.name
            object_id int f.object_id
            schema_id int k.schema_id
            parent_object_id int f.parent
            is_disabled bit f.disabled
            definition nvarchar(max) f.definition",
            "core_checks f JOIN core_objects o ON o.object_id = f.parent JOIN core_objects k ON k.object_id = f.object_id WHERE {visible}",
        ),
        "sys.sql_modules" => (
            "object_id int o.object_id\ndefinition nvarchar(max) o.definition",
            "core_objects o WHERE o.type = 'V' AND {visible}",
        ),
        "sys.partitions" => (
            "partition_id bigint o.object_id
            object_id int o.object_id
            index_id int 1
            partition_number int 1
            rows bigint -1",
            "core_objects o WHERE o.type = 'U' AND 0",
        ),
        "sys.database_principals" => (
            "name sysname p.name
            principal_id int p.principal_id
            type char(1) p.type
            type_desc nvarchar(60) CASE p.type WHEN 'R' THEN 'DATABASE_ROLE' ELSE 'SQL_USER' END
            default_schema_name sysname CASE p.type WHEN 'S' THEN 'dbo' END
            is_fixed_role bit p.principal_id BETWEEN 16384 AND 16393",
            "core_principals p",
        ),
        "sys.database_role_members" => {
            ("role_principal_id int m.role_id\nmember_principal_id int m.member_id", "core_members m")
        }
        "sys.change_tracking_tables" => (
            "object_id int o.object_id
            is_track_columns_updated_on bit o.ct_columns
            min_valid_version bigint o.ct_min
            begin_version bigint o.ct_begin
            cleanup_version bigint o.ct_min",
            "core_objects o WHERE o.ct AND {visible}",
        ),
        "information_schema.tables" => (
            "TABLE_CATALOG nvarchar(128) {db}
            TABLE_SCHEMA nvarchar(128) s.name
            TABLE_NAME sysname o.name
            TABLE_TYPE varchar(10) CASE o.type WHEN 'U' THEN 'BASE TABLE' ELSE 'VIEW' END",
            "core_objects o JOIN core_schemas s ON s.schema_id = o.schema_id WHERE o.type IN ('U', 'V') AND {visible}",
        ),
        "information_schema.columns" => (
            "TABLE_CATALOG nvarchar(128) {db}
            TABLE_SCHEMA nvarchar(128) s.name
            TABLE_NAME sysname o.name
            COLUMN_NAME sysname c.name
            ORDINAL_POSITION int c.column_id
            COLUMN_DEFAULT nvarchar(4000) c.default_text
            IS_NULLABLE varchar(3) CASE WHEN c.nullable THEN 'YES' ELSE 'NO' END
            DATA_TYPE nvarchar(128) t.name
            CHARACTER_MAXIMUM_LENGTH int t.characters
            NUMERIC_PRECISION tinyint CASE WHEN t.numbers THEN t.precision END
            NUMERIC_SCALE int CASE WHEN t.numbers THEN t.scale END
            DATETIME_PRECISION smallint CASE WHEN t.times THEN t.scale END
            COLLATION_NAME sysname t.collation",
            "core_columns c JOIN core_objects o ON o.object_id = c.object_id JOIN core_schemas s ON s.schema_id = o.schema_id \
             JOIN core_types t ON t.code = c.type WHERE o.type IN ('U', 'V') AND {visible}",
        ),
        _ => return None,
    })
}

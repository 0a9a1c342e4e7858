-- Times are ISO 8601 in UTC. Blobs are named by the MD5 of their bytes, in hexadecimal, because W&B's protocol is.

CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);

CREATE TABLE keys (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    entity TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,          -- SHA-256 of the key, which is long and random: no salt is needed
    created_at TEXT NOT NULL,
    revoked_at TEXT,
    admin INTEGER NOT NULL DEFAULT 0    -- may move protected aliases
);

CREATE TABLE projects (
    id INTEGER PRIMARY KEY,
    entity TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    access TEXT,
    created_at TEXT NOT NULL,
    UNIQUE (entity, name)
);

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    project INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    name TEXT NOT NULL,                 -- W&B's run id
    user TEXT NOT NULL,
    display_name TEXT,
    description TEXT,
    notes TEXT,
    group_name TEXT,
    job_type TEXT,
    sweep TEXT,
    host TEXT,
    program TEXT,
    repo TEXT,
    git_commit TEXT,
    state TEXT NOT NULL,
    exit_code INTEGER,
    tags TEXT NOT NULL DEFAULT '[]',
    config TEXT NOT NULL DEFAULT '{}',
    summary TEXT NOT NULL DEFAULT '{}',
    stop_requested INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    heartbeat_at TEXT NOT NULL,
    UNIQUE (project, name)
);

-- One line of a run's streams: history (metrics), events (system metrics), output (console).
CREATE TABLE run_lines (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    stream TEXT NOT NULL,
    line INTEGER NOT NULL,
    step INTEGER,
    data TEXT NOT NULL,
    PRIMARY KEY (run, stream, line)
) WITHOUT ROWID;

CREATE TABLE run_files (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    name TEXT NOT NULL,
    md5 TEXT NOT NULL,
    size INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (run, name)
);
CREATE INDEX run_files_md5 ON run_files (md5);

-- SEQUENCE: where versions are logged. PORTFOLIO: where versions are linked to, such as a registry's collections.
CREATE TABLE collections (
    id INTEGER PRIMARY KEY,
    project INTEGER NOT NULL REFERENCES projects ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('SEQUENCE', 'PORTFOLIO')),
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    next_version INTEGER NOT NULL DEFAULT 0,  -- never reused, even when a version is deleted
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (project, name)
);

CREATE TABLE artifacts (
    id INTEGER PRIMARY KEY,
    collection INTEGER NOT NULL REFERENCES collections ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('PENDING', 'COMMITTED')),
    digest TEXT NOT NULL,
    digest_algorithm TEXT NOT NULL,
    description TEXT,
    metadata TEXT,
    ttl_seconds INTEGER,
    manifest_md5 TEXT,
    size INTEGER NOT NULL DEFAULT 0,
    file_count INTEGER NOT NULL DEFAULT 0,
    created_by INTEGER REFERENCES runs ON DELETE SET NULL,
    history_step INTEGER,
    git_commit TEXT,
    wanted TEXT NOT NULL DEFAULT '{}',  -- aliases and tags to be given when it is committed
    created_at TEXT NOT NULL,
    updated_at TEXT
);
CREATE INDEX artifacts_digest ON artifacts (collection, digest);
CREATE INDEX artifacts_pending ON artifacts (created_at) WHERE state = 'PENDING';

-- The ids that clients gave their drafts; several drafts with the same content share one artifact.
CREATE TABLE client_ids (
    client_id TEXT PRIMARY KEY,
    artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX client_ids_artifact ON client_ids (artifact);

CREATE TABLE artifact_files (
    artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE,
    name TEXT NOT NULL,
    md5 TEXT,                           -- NULL for a reference to somewhere else
    digest TEXT NOT NULL,               -- as the manifest has it
    size INTEGER NOT NULL,
    PRIMARY KEY (artifact, name)
) WITHOUT ROWID;
CREATE INDEX artifact_files_md5 ON artifact_files (md5);

-- A version's place in a collection: its own sequence, and every portfolio that it was linked to.
CREATE TABLE memberships (
    id INTEGER PRIMARY KEY,
    collection INTEGER NOT NULL REFERENCES collections ON DELETE CASCADE,
    artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE,
    version INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (collection, version),
    UNIQUE (collection, artifact)
);
CREATE INDEX memberships_artifact ON memberships (artifact);

CREATE TABLE aliases (
    collection INTEGER NOT NULL REFERENCES collections ON DELETE CASCADE,
    alias TEXT NOT NULL,
    membership INTEGER NOT NULL REFERENCES memberships ON DELETE CASCADE,
    PRIMARY KEY (collection, alias)     -- so an alias names one version, and moving it is one statement
) WITHOUT ROWID;
CREATE INDEX aliases_membership ON aliases (membership);

CREATE TABLE artifact_tags (
    artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (artifact, tag)
) WITHOUT ROWID;

CREATE TABLE collection_tags (
    collection INTEGER NOT NULL REFERENCES collections ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (collection, tag)
) WITHOUT ROWID;

CREATE TABLE run_inputs (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE,
    used_as TEXT,
    created_at TEXT NOT NULL,
    PRIMARY KEY (run, artifact)
) WITHOUT ROWID;
CREATE INDEX run_inputs_artifact ON run_inputs (artifact);

CREATE TABLE run_outputs (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    artifact INTEGER NOT NULL REFERENCES artifacts ON DELETE CASCADE,
    created_at TEXT NOT NULL,
    PRIMARY KEY (run, artifact)
) WITHOUT ROWID;
CREATE INDEX run_outputs_artifact ON run_outputs (artifact);

-- One task hub in one file. Instants are microseconds since 1970; texts of events, tasks and states are the codec's.

-- What this file is: `name`, `identity` (random, tells a restored copy from another hub), `created_at`, `probe`.
CREATE TABLE hub (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Stores that are open to process work. `file` is the lock file that proves that the owner lives. The numbers are never
-- used again (AUTOINCREMENT): they are the upper bits of leases, which are the fence.
CREATE TABLE owners (
    owner INTEGER PRIMARY KEY AUTOINCREMENT,
    file TEXT NOT NULL,
    app TEXT NOT NULL,
    lease_length INTEGER NOT NULL
);

-- An instance, or a place for messages to one that has not run (`state` is NULL then).
--   wake_at       when it next wants a worker: NULL: never; below 2^48: at once, in order of arrival (the number of the
--                 oldest message); else an instant: a delayed message is due, or, with a lease, the lease ends.
--   lease         the current lease, or NULL. Negative: it has ended, nothing waits, and nobody else has taken it.
--   generation, length   the version of the committed history; NULL before the first commit.
--   start_id      the message that create_instance accepted last.
--   large         bit mask of payloads that are kept in `payloads`.
CREATE TABLE instances (
    ref INTEGER PRIMARY KEY,
    instance_id TEXT NOT NULL UNIQUE,
    wake_at INTEGER,
    lease INTEGER,
    generation INTEGER,
    length INTEGER,
    updated_at INTEGER,
    created_at INTEGER,
    status TEXT,
    execution_id TEXT,
    name TEXT,
    parent_id TEXT,
    start_id TEXT,
    quarantined TEXT,
    large INTEGER NOT NULL DEFAULT 0,
    state TEXT,
    input TEXT,
    output TEXT,
    custom_status TEXT,
    failure TEXT
);

-- For probe, immediate_instances, due_instances: who is eligible, and when somebody will be.
CREATE INDEX instances_by_wake ON instances (wake_at) WHERE wake_at IS NOT NULL;
-- For query_instances by open statuses, and count_statuses.
CREATE INDEX instances_by_status ON instances (status);
-- For query_instances by parent.
CREATE INDEX instances_by_parent ON instances (parent_id) WHERE parent_id IS NOT NULL;

-- Payloads that are too long for the instance's row. A row may be out of date where `instances.large` lacks its bit.
CREATE TABLE payloads (
    ref INTEGER NOT NULL,
    member INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (ref, member)
);

CREATE TABLE tags (
    ref INTEGER NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (ref, name)
) WITHOUT ROWID;

-- For query_instances by tag.
CREATE INDEX tags_by_value ON tags (name, value);

-- The events that one checkpoint appended, as one JSON array; `first` is the index of the first of them.
CREATE TABLE history (
    id INTEGER PRIMARY KEY,
    ref INTEGER NOT NULL,
    first INTEGER NOT NULL,
    events TEXT NOT NULL,
    UNIQUE (ref, first)
);

-- Inboxes. `due` compares like `instances.wake_at`: `seq` for a message that is visible at once, else an instant.
-- `arrived_at` never falls while `seq` rises, whatever the clock does; it orders what becomes visible.
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY,
    ref INTEGER NOT NULL,
    due INTEGER NOT NULL,
    arrived_at INTEGER NOT NULL,
    visible_at INTEGER,
    deliveries INTEGER NOT NULL DEFAULT 0,
    id TEXT NOT NULL,
    execution_id TEXT,
    event TEXT NOT NULL,
    UNIQUE (ref, id)
);

-- For read_inbox, and for the earliest message of an instance.
CREATE INDEX messages_by_due ON messages (ref, due);

-- Activity tasks. `wake_at` as in `instances`, `seq` standing for "at once".
CREATE TABLE activities (
    seq INTEGER PRIMARY KEY,
    ref INTEGER NOT NULL,
    wake_at INTEGER NOT NULL,
    lease INTEGER,
    deliveries INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    dispatch_id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL
);

-- For probe, immediate_activities, due_activities.
CREATE INDEX activities_by_wake ON activities (wake_at);

CREATE TABLE host_leases (
    name TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    owner INTEGER,
    ends_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE host_documents (
    path TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    value BLOB NOT NULL
);

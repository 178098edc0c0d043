-- Any number of task hubs in one schema, which is called durable_host here and may have another name. Instants are
-- microseconds since 1970 by the server's clock; texts of events, tasks and states are the codec's, as UTF-8, which may
-- hold what the type text cannot.

-- One row: the version of these tables.
CREATE TABLE durable_host.version (version integer NOT NULL);

-- The hubs. `key` is the name for comparison; `identity` tells a hub from another one of the same name.
CREATE TABLE durable_host.hubs (
    hub integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE,
    name text COLLATE "C" NOT NULL,
    identity text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL
);

-- Numbers of store objects: the upper bits of leases, so that no lease is ever given twice.
CREATE SEQUENCE durable_host.owners;

-- An instance, or a place for messages to one that has not run (`state` is NULL then).
--   wake_at       when it next wants a worker; NULL: never. With a lease: when that ends, else when the earliest message
--                 of its inbox is due.
--   lease         the current lease, or NULL. Negative: it has ended, nothing waits, and nobody else has taken it.
--   generation, length   the version of the committed history; NULL before the first commit.
--   settled_at    `updated_at` once the instance has ended: the indexed one, so that a step touches no index.
--   start_id      the message that create_instance accepted last. `pending`: that start has not run.
--   status        as shown; `own_status`: what it was before quarantine.
--   carried_*     an activity that was handed over with the last step, instead of a row of its own: what comes in as the
--                 result of the next step costs no row and no index. Only under a lease; see the function `unload`.
CREATE TABLE durable_host.instances (
    ref bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    wake_at bigint,
    lease bigint,
    updated_at bigint,
    created_at bigint,
    settled_at bigint,
    hub integer NOT NULL,
    generation integer,
    length integer,
    pending boolean NOT NULL DEFAULT false,
    instance_id text COLLATE "C" NOT NULL,
    status text COLLATE "C",
    own_status text COLLATE "C",
    execution_id text COLLATE "C",
    name text COLLATE "C",
    parent_id text COLLATE "C",
    start_id text COLLATE "C",
    quarantined text,
    state bytea,
    input bytea,
    output bytea,
    custom_status bytea,
    failure bytea,
    carried_lease bigint,
    carried_until bigint,
    carried_at bigint,
    carried_id text COLLATE "C",
    carried_task bytea
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);

-- For every question about one instance, for pages in the order of ids, and for query_instances by prefix.
CREATE UNIQUE INDEX instances_by_id ON durable_host.instances (hub, instance_id);
-- For lock_instances: who is eligible, and when somebody will be.
CREATE INDEX instances_by_wake ON durable_host.instances (hub, wake_at) WHERE wake_at IS NOT NULL;
-- For query_instances by status, and count_statuses.
CREATE INDEX instances_by_status ON durable_host.instances (hub, status, instance_id);
-- For query_instances by name.
CREATE INDEX instances_by_name ON durable_host.instances (hub, name, instance_id);
-- For query_instances by creation time.
CREATE INDEX instances_by_creation ON durable_host.instances (hub, created_at);
-- For query_instances by time of the last change.
CREATE INDEX instances_by_change ON durable_host.instances (hub, settled_at) WHERE settled_at IS NOT NULL;
-- The same for those that have not ended, whose time changes with each step: they are few.
CREATE INDEX instances_open ON durable_host.instances (hub, instance_id) WHERE settled_at IS NULL;
-- For query_instances by parent.
CREATE INDEX instances_by_parent ON durable_host.instances (hub, parent_id, instance_id) WHERE parent_id IS NOT NULL;
-- For statistics.
CREATE INDEX instances_in_quarantine ON durable_host.instances (hub) WHERE quarantined IS NOT NULL;

-- For query_instances by tag.
CREATE TABLE durable_host.tags (
    ref bigint NOT NULL,
    name bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (ref, name)
);
CREATE INDEX tags_by_value ON durable_host.tags (name, value, ref);

-- The events that one checkpoint appended, as one JSON array; `first` is the index of the first of them.
CREATE TABLE durable_host.history (
    ref bigint NOT NULL,
    first integer NOT NULL,
    events bytea NOT NULL,
    PRIMARY KEY (ref, first)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- Inboxes. `due`: when the message is delivered; never before `arrived_at`.
CREATE TABLE durable_host.messages (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ref bigint NOT NULL,
    due bigint NOT NULL,
    arrived_at bigint NOT NULL,
    visible_at bigint,
    hub integer NOT NULL,
    deliveries integer NOT NULL DEFAULT 0,
    id text COLLATE "C" NOT NULL,
    execution_id text COLLATE "C",
    event bytea NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- A message whose id waits already is not stored again.
CREATE UNIQUE INDEX messages_by_id ON durable_host.messages (ref, id);
-- For reading an inbox, and for its earliest message.
CREATE INDEX messages_by_due ON durable_host.messages (ref, due);

-- Activity tasks. `wake_at`: when a worker may take it, or with a lease, when that ends.
CREATE TABLE durable_host.activities (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    ref bigint NOT NULL,
    wake_at bigint NOT NULL,
    lease bigint,
    created_at bigint NOT NULL,
    hub integer NOT NULL,
    deliveries integer NOT NULL,
    dispatch_id text COLLATE "C" NOT NULL,
    task bytea NOT NULL,
    PRIMARY KEY (hub, dispatch_id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- For lock_activities.
CREATE INDEX activities_by_wake ON durable_host.activities (hub, wake_at, seq);
-- For purge.
CREATE INDEX activities_by_instance ON durable_host.activities (ref);

CREATE TABLE durable_host.host_leases (
    hub integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    token text COLLATE "C" NOT NULL,
    owner bigint,
    ends_at bigint NOT NULL,
    PRIMARY KEY (hub, name)
);

CREATE TABLE durable_host.host_documents (
    hub integer NOT NULL,
    path text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (hub, path)
);

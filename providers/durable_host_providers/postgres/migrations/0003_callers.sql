-- Starts and messages in transactions of callers, with or without Python.
--
-- They lock the rows of the instances that they address until the caller's transaction ends: it should end soon. The
-- notes are sent by the server when it commits.

-- Texts of the codec with places to fill: '"name"', '"input"', … with the mark around them.
CREATE TABLE durable_host.templates (name text PRIMARY KEY, text text NOT NULL);

CREATE FUNCTION durable_host.announce(a_hub integer, a_refs bigint[]) RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify(
        'durable_host_' || a_hub,
        CASE
            WHEN cardinality(a_refs) > 200 THEN '{"o":0,"i":true,"*":true}'
            ELSE json_build_object('o', 0, 'i', true, 'r', coalesce(a_refs, '{}'))::text
        END
    )
$$;

-- Put messages into inboxes, as part of a caller's transaction.
CREATE FUNCTION durable_host.send_with(
    a_hub integer, m_target text[], m_id text[], m_execution text[], m_visible bigint[], m_event bytea[]
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM durable_host.announce(a_hub, (
        SELECT array_agg(a.ref) FILTER (WHERE a.kind = 4)
        FROM durable_host.send(a_hub, 0, 0, m_target, m_id, m_execution, m_visible, m_event, 0) AS a
    ));
    RETURN true;
END
$$;

-- Store a start, as part of a caller's transaction; says whether it was taken.
CREATE FUNCTION durable_host.start_with(
    a_hub integer, s_id text[], s_message text[], s_to text[], s_visible bigint[], s_event bytea[], s_status text[],
    s_execution text[], s_name text[], s_parent text[], s_created bigint[], s_state bytea[], s_input bytea[],
    s_replaceable text[], g_message text[], g_name bytea[], g_value bytea[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_taken boolean;
    v_refs bigint[];
BEGIN
    SELECT count(*) FILTER (WHERE a.kind = 8) > 0, array_agg(a.ref) FILTER (WHERE a.kind = 4) INTO v_taken, v_refs
    FROM durable_host.start(
        a_hub, 0, 0, 0, s_id, s_message, s_to, s_visible, s_event, s_status, s_execution, s_name, s_parent, s_created,
        s_state, s_input, s_replaceable, g_message, g_name, g_value
    ) AS a;
    IF v_taken THEN
        PERFORM durable_host.announce(a_hub, v_refs);
    END IF;
    RETURN v_taken;
END
$$;

-- A JSON text for a place in a template.
CREATE FUNCTION durable_host.filled(a_text text, a_place text, a_value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT replace(a_text, '"durable-host:' || a_place || '"', coalesce(to_json(a_value)::text, 'null'))
$$;

CREATE FUNCTION durable_host.instant(a_micros bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT to_char(
        timestamp '1970-01-01' + a_micros * interval '1 microsecond',
        'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
    )
$$;

CREATE FUNCTION durable_host.filled_start(
    a_text text, a_id text, a_execution text, a_name text, a_now bigint, a_at bigint
) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT durable_host.filled(durable_host.filled(durable_host.filled(
        replace(replace(
            a_text,
            '2001-02-03T04:05:06.000007Z', durable_host.instant(a_now)
        ), '2002-02-03T04:05:06.000007Z', coalesce(durable_host.instant(a_at), '')),
        'instance', a_id), 'execution', a_execution), 'name', a_name)
$$;

CREATE FUNCTION durable_host.require_hub(a_name text) RETURNS integer LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_hub integer;
BEGIN
    SELECT h.hub INTO v_hub FROM durable_host.hubs h WHERE h.key = lower(a_name) OR h.name = a_name;
    IF v_hub IS NULL THEN
        RAISE EXCEPTION 'there is no task hub %', quote_literal(a_name) USING ERRCODE = 'undefined_object';
    END IF;
    RETURN v_hub;
END
$$;

-- For callers without Python: start an orchestrator.
--   hub, name     of the task hub and of the orchestrator
--   input         JSON text, or NULL
--   instance_id   1 to 256 characters; NULL: generated
--   start_at      not before; NULL: at once
-- Returns the instance's id. An id that is in use is an error (unique_violation).
CREATE FUNCTION durable_host.start_instance(
    hub text, name text, input text DEFAULT NULL, instance_id text DEFAULT NULL, start_at timestamptz DEFAULT NULL
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_hub integer := durable_host.require_hub(hub);
    v_now bigint := durable_host.now_micros();
    v_at bigint := (extract(epoch FROM start_at)::numeric * 1000000)::bigint;
    v_id text := coalesce(instance_id, replace(gen_random_uuid()::text, '-', ''));
    v_execution text := replace(gen_random_uuid()::text, '-', '');
    v_message text := replace(gen_random_uuid()::text, '-', '');
    v_event text;
    v_state text;
BEGIN
    IF coalesce(name, '') = '' THEN
        RAISE EXCEPTION 'the name of the orchestrator is missing' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF length(v_id) NOT BETWEEN 1 AND 256 OR v_id ~ '[/\\#?[:cntrl:]]' OR v_id LIKE '@%' THEN
        RAISE EXCEPTION 'instance id % is not valid: 1 to 256 characters, none of / \ # ? or control characters, not beginning with @',
            quote_literal(v_id) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF input IS NOT NULL THEN
        PERFORM input::json; -- an error says what is wrong with it
    END IF;
    SELECT t.text INTO STRICT v_event FROM durable_host.templates t WHERE t.name = CASE
        WHEN v_at IS NULL THEN 'start' ELSE 'start later' END;
    SELECT t.text INTO STRICT v_state FROM durable_host.templates t WHERE t.name = CASE
        WHEN v_at IS NULL THEN 'pending' ELSE 'pending later' END;
    v_event := durable_host.filled(durable_host.filled_start(v_event, v_id, v_execution, name, v_now, v_at), 'input', input);
    v_state := durable_host.filled_start(v_state, v_id, v_execution, name, v_now, v_at);
    IF NOT durable_host.start_with(
        v_hub, ARRAY[v_id], ARRAY[v_message], ARRAY[v_execution], ARRAY[CASE WHEN v_at > v_now THEN v_at END],
        ARRAY[convert_to(v_event, 'UTF8')], ARRAY['Pending'], ARRAY[v_execution], ARRAY[name], ARRAY[NULL::text],
        ARRAY[v_now], ARRAY[convert_to(v_state, 'UTF8')], ARRAY[convert_to(input, 'UTF8')], ARRAY[''], NULL, NULL, NULL
    ) THEN
        RAISE EXCEPTION 'an instance with the id % already exists', quote_literal(v_id) USING ERRCODE = 'unique_violation';
    END IF;
    RETURN v_id;
END
$$;

-- For callers without Python: raise an event for an instance. `input` is JSON text, or NULL.
CREATE FUNCTION durable_host.raise_event(hub text, instance_id text, name text, input text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_hub integer := durable_host.require_hub(hub);
    v_event text;
BEGIN
    IF coalesce(instance_id, '') = '' OR coalesce(name, '') = '' THEN
        RAISE EXCEPTION 'the id of the instance and the name of the event are needed'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF input IS NOT NULL THEN
        PERFORM input::json;
    END IF;
    SELECT t.text INTO STRICT v_event FROM durable_host.templates t WHERE t.name = 'event';
    v_event := replace(v_event, '2001-02-03T04:05:06.000007Z', durable_host.instant(durable_host.now_micros()));
    v_event := durable_host.filled(durable_host.filled(v_event, 'name', name), 'input', input);
    PERFORM durable_host.send_with(
        v_hub, ARRAY[instance_id], ARRAY[replace(gen_random_uuid()::text, '-', '')], ARRAY[NULL::text],
        ARRAY[NULL::bigint], ARRAY[convert_to(v_event, 'UTF8')]
    );
END
$$;

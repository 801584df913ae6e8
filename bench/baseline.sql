-- What run_tracker is compared with: the tables and triggers that applications write by hand. A run carries its
-- messages and totals; a row trigger adds each task that is completed to the row of its run.
CREATE SCHEMA baseline;

CREATE TABLE baseline.ai_runs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text NOT NULL,
    name text,
    messages jsonb NOT NULL DEFAULT '[]',
    settings jsonb NOT NULL DEFAULT '{}',
    variable_values jsonb NOT NULL DEFAULT '{}',
    message_count integer NOT NULL DEFAULT 0,
    task_count integer NOT NULL DEFAULT 0,
    total_tokens bigint NOT NULL DEFAULT 0,
    total_cost numeric NOT NULL DEFAULT 0,
    last_message_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
-- lists of conversations begin with the one that was active last
CREATE INDEX ON baseline.ai_runs (user_id, last_message_at DESC);

CREATE TABLE baseline.ai_tasks (
    task_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    run_id uuid NOT NULL REFERENCES baseline.ai_runs ON DELETE CASCADE,
    user_id text NOT NULL,
    service text,
    task_name text,
    model text,
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'running', 'streaming', 'completed', 'failed')),
    request_data jsonb,
    response_text text,
    tokens_input bigint,
    tokens_output bigint,
    tokens_total bigint,
    cost numeric,
    time_to_first_token bigint,
    total_time bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz
);
CREATE INDEX ON baseline.ai_tasks (run_id);
CREATE INDEX ON baseline.ai_tasks (user_id, created_at DESC);

CREATE FUNCTION baseline.touch() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE FUNCTION baseline.task_finished() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'completed' AND OLD.status <> 'completed' THEN
        UPDATE baseline.ai_runs
        SET task_count = task_count + 1,
            total_tokens = total_tokens + COALESCE(NEW.tokens_total, 0),
            total_cost = total_cost + COALESCE(NEW.cost, 0),
            last_message_at = now()
        WHERE id = NEW.run_id;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER touch BEFORE UPDATE ON baseline.ai_runs FOR EACH ROW EXECUTE FUNCTION baseline.touch();
CREATE TRIGGER touch BEFORE UPDATE ON baseline.ai_tasks FOR EACH ROW EXECUTE FUNCTION baseline.touch();
CREATE TRIGGER finished AFTER UPDATE ON baseline.ai_tasks FOR EACH ROW EXECUTE FUNCTION baseline.task_finished();

-- The job table. `{p}` stands for `table_prefix`. Read by other people's SQLite libraries:
-- nothing newer than 3.37. Times are unix milliseconds; julianday('now') is exact to the
-- millisecond, and constant within one statement, triggers included.

CREATE TABLE {p}meta (
  key TEXT PRIMARY KEY NOT NULL,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE {p}jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  type TEXT NOT NULL CHECK (type <> ''),
  payload TEXT NOT NULL DEFAULT '{}',
  state TEXT NOT NULL DEFAULT 'available' CHECK (state IN ('blocked', 'scheduled', 'available',
    'running', 'held', 'succeeded', 'failed', 'cancelled')),
  priority INTEGER NOT NULL DEFAULT 0, -- the larger runs first
  run_at INTEGER DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)),
  created_at INTEGER DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)),
  started_at INTEGER,
  finished_at INTEGER,
  attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0), -- claims so far: the fence
  failures INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
  crash_count INTEGER NOT NULL DEFAULT 0 CHECK (crash_count >= 0),
  max_attempts INTEGER CHECK (max_attempts >= 1), -- NULL: the type's; bounds failures
  timeout_ms INTEGER CHECK (timeout_ms >= 1), -- NULL: the type's
  unique_key TEXT, -- one unfinished job per key
  tags TEXT,
  owner TEXT,
  cancel_requested_at INTEGER,
  progress REAL CHECK (progress BETWEEN 0.0 AND 1.0),
  progress_note TEXT,
  checkpoint BLOB,
  result TEXT,
  last_error TEXT,
  CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
  CHECK ((state = 'running') = (owner IS NOT NULL))
) STRICT;

CREATE TABLE {p}attempts (
  job_id INTEGER NOT NULL,
  attempt INTEGER NOT NULL CHECK (attempt >= 1),
  instance TEXT NOT NULL,
  worker TEXT,
  pid INTEGER,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  outcome TEXT CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'held', 'released',
    'crashed')),
  cause TEXT,
  exit_code INTEGER,
  signal INTEGER,
  cpu_ms INTEGER,
  memory_peak INTEGER, -- bytes
  confinement TEXT,
  error TEXT,
  PRIMARY KEY (job_id, attempt),
  CHECK ((ended_at IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE {p}instances (
  id TEXT PRIMARY KEY NOT NULL,
  boot_id TEXT NOT NULL,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  version TEXT NOT NULL,
  started_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One partial index per question, so that ten million finished rows slow nothing down. A final
-- state and `finished_at` imply each other, and only the latter is a condition that the planner
-- proves by itself.
CREATE INDEX {p}jobs_available ON {p}jobs (type, priority DESC, run_at, id)
  WHERE state = 'available';
CREATE INDEX {p}jobs_scheduled ON {p}jobs (run_at, type) WHERE state = 'scheduled';
CREATE INDEX {p}jobs_running ON {p}jobs (owner, attempt, cancel_requested_at)
  WHERE state = 'running';
CREATE INDEX {p}jobs_held ON {p}jobs (type) WHERE state = 'held';
CREATE INDEX {p}jobs_final ON {p}jobs (state, finished_at) WHERE finished_at IS NOT NULL;
CREATE UNIQUE INDEX {p}jobs_unique ON {p}jobs (unique_key)
  WHERE unique_key IS NOT NULL AND finished_at IS NULL;

CREATE TRIGGER {p}jobs_refuse BEFORE INSERT ON {p}jobs
WHEN NEW.state IS NOT 'available' AND NEW.state IS NOT 'scheduled'
  OR NEW.attempt IS NOT 0 OR NEW.failures IS NOT 0 OR NEW.crash_count IS NOT 0
  OR NEW.owner IS NOT NULL OR NEW.started_at IS NOT NULL OR NEW.finished_at IS NOT NULL
  OR NEW.cancel_requested_at IS NOT NULL
BEGIN
  SELECT CASE
    WHEN NEW.state = 'blocked' THEN RAISE(ABORT,
      'shiftboss: state ''blocked'' is reserved for chained jobs, which do not exist yet: leave state out')
    WHEN NEW.state IS NOT 'available' AND NEW.state IS NOT 'scheduled' THEN RAISE(ABORT,
      'shiftboss: a job is inserted as ''available'' or ''scheduled'' only: leave state out, and set run_at to delay it')
    ELSE RAISE(ABORT,
      'shiftboss: attempt, failures, crash_count, owner, started_at, finished_at and cancel_requested_at belong to the supervisor: leave them out of the INSERT')
  END;
END;

-- A job is scheduled if and only if it is due later. RETURNING shows the row before this.
CREATE TRIGGER {p}jobs_settle AFTER INSERT ON {p}jobs
WHEN NEW.run_at IS NULL OR NEW.created_at IS NULL OR (NEW.state = 'scheduled') <> (NEW.run_at >
  CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER))
BEGIN
  UPDATE {p}jobs SET
    run_at = coalesce(NEW.run_at,
      CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)),
    created_at = coalesce(NEW.created_at,
      CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)),
    state = CASE WHEN NEW.run_at >
      CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)
      THEN 'scheduled' ELSE 'available' END
  WHERE id = NEW.id;
END;

-- A scheduled job without a time would never run.
CREATE TRIGGER {p}jobs_run_at BEFORE UPDATE OF run_at ON {p}jobs WHEN NEW.run_at IS NULL
BEGIN
  SELECT RAISE(ABORT, 'shiftboss: run_at of a stored job cannot be NULL: set unix milliseconds');
END;

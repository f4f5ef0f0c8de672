//! Which databases are taken, and what is said about the others.

use super::*;
use crate::store::direct::Direct;
use crate::store::schema;

#[test]
fn the_schema_is_the_golden_one() {
    let folder = folder();
    let db = database(&folder);
    let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'
               ORDER BY rowid";
    let mut statement = db.conn.prepare(sql).expect("the schema can be read");
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).expect("it has rows");
    let found: Vec<String> = rows.map(|row| row.expect("it is text") + ";\n").collect();
    let golden = include_str!("schema.golden");
    assert_eq!(found.join("\n"), golden, "a change of the schema is a new migration");
}

#[test]
fn opening_twice_changes_nothing_and_leaves_user_version_alone() {
    let folder = folder();
    drop(database(&folder));
    let conn = foreign(&options(&folder).path);
    conn.pragma_update(None, "user_version", 42).expect("it can be set");
    let version = |conn: &Connection| -> (i64, i64) {
        let pragma = |name| conn.pragma_query_value(None, name, |row| row.get(0));
        (pragma("schema_version").expect("read"), pragma("user_version").expect("read"))
    };
    let before = version(&conn);
    drop(database(&folder));
    assert_eq!(version(&conn), before);
    assert_eq!(before.1, 42);
}

#[test]
fn programs_that_make_one_database_at_once_wait_for_each_other() {
    for _ in 0..20 {
        let folder = folder();
        let options = options(&folder);
        let start = std::sync::Barrier::new(6);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    start.wait();
                    Db::open_writer(&options).expect("it waits for the others");
                });
            }
        });
    }
}

#[test]
fn two_prefixes_share_a_database() {
    let folder = folder();
    let open = |prefix: &str| {
        let options = OpenOptions { prefix: prefix.to_owned(), ..options(&folder) };
        Direct::open(&options).expect("it opens")
    };
    let (plain, prefixed) = (open(""), open("sb_"));
    plain.enqueue(&[new_job("a")]).expect("it is inserted");
    prefixed.enqueue(&[new_job("a"), new_job("b")]).expect("they are inserted");
    let count = |prefix: &str| {
        let reader = Reader::open(&options(&folder).path, prefix).expect("it opens");
        reader.counts().expect("they are counted").iter().map(|one| one.count).sum::<i64>()
    };
    assert_eq!((count(""), count("sb_")), (1, 2));
}

fn refusal(options: &OpenOptions) -> String {
    match Db::open_writer(options) {
        Ok(_) => panic!("{} is taken", options.path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_foreign_jobs_table_is_refused_with_the_prefix_as_remedy() {
    let folder = folder();
    let options = options(&folder);
    let conn = foreign(&options.path);
    conn.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE jobs(id, title)").expect("made");
    assert!(refusal(&options).contains("has a table jobs that is not shiftboss's"));
    assert!(refusal(&options).contains("table_prefix = \"shiftboss_\""));
    let prefixed = OpenOptions { prefix: "shiftboss_".to_owned(), ..options };
    assert!(Db::open_writer(&prefixed).is_ok());
}

#[test]
fn a_foreign_meta_table_is_refused_even_with_a_version() {
    let folder = folder();
    let options = options(&folder);
    let conn = foreign(&options.path);
    conn.execute_batch(
        "PRAGMA journal_mode = wal; CREATE TABLE meta(key, value);
         INSERT INTO meta VALUES('schema_version', '1')",
    )
    .expect("made");
    assert!(refusal(&options).contains("table meta that is not shiftboss's (it lacks our mark)"));
}

#[test]
fn tables_of_the_first_version_are_brought_up_to_date_and_keep_their_rows() {
    let folder = folder();
    drop(database(&folder));
    let path = options(&folder).path;
    let conn = foreign(&path);
    conn.execute_batch(
        "INSERT INTO attempts (job_id, attempt, instance, started_at) VALUES (1, 1, 'old', 5);
         ALTER TABLE attempts DROP COLUMN throttled_ms;
         UPDATE meta SET value = '1' WHERE key = 'schema_version'",
    )
    .expect("as the first version left it");
    drop(database(&folder));
    let sql = "SELECT instance, throttled_ms, value FROM attempts, meta
               WHERE key = 'schema_version'";
    let row: (String, Option<i64>, String) = conn
        .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .expect("the column is there");
    assert_eq!(row, ("old".to_owned(), None, "2".to_owned()));
    drop(database(&folder));
}

#[test]
fn a_newer_schema_is_refused() {
    let folder = folder();
    drop(database(&folder));
    let conn = foreign(&options(&folder).path);
    conn.execute("UPDATE meta SET value = '7' WHERE key = 'schema_version'", []).expect("set");
    let said = refusal(&options(&folder));
    let wanted = format!("has schema version 7, this program knows versions up to {}", 2);
    assert!(said.contains(&wanted), "{said}");
    assert_eq!(schema::VERSION, 2);
    assert!(Reader::open(&options(&folder).path, "").is_err());
}

#[test]
fn a_file_that_is_not_a_database_is_refused_and_left_alone() {
    let folder = folder();
    let options = options(&folder);
    let text = "these are my notes\n".repeat(100);
    std::fs::write(&options.path, &text).expect("written");
    assert!(refusal(&options).contains("it is not an SQLite database"));
    assert_eq!(std::fs::read_to_string(&options.path).expect("read"), text);
}

#[test]
fn a_database_in_another_journal_mode_is_switched_only_on_request() {
    let folder = folder();
    let options = options(&folder);
    foreign(&options.path).execute_batch("CREATE TABLE users(name)").expect("made");
    let said = refusal(&options);
    assert!(said.contains("its journal mode is delete") && said.contains("wal = \"switch\""));
    let switch = OpenOptions { wal: WalPolicy::Switch, ..options.clone() };
    drop(Db::open_writer(&switch).expect("it is switched"));
    assert!(Db::open_writer(&options).is_ok());
}

#[test]
fn a_missing_folder_is_named() {
    let folder = folder();
    let path = folder.path().join("nowhere/jobs.db");
    let said = refusal(&OpenOptions { path, ..options(&folder) });
    assert!(said.contains("its folder does not exist, create") && said.contains("nowhere"));
}

#[test]
fn a_network_file_system_is_refused() {
    let folder = folder();
    let network = OpenOptions { network_fs: Some("nfs".to_owned()), ..options(&folder) };
    assert!(refusal(&network).contains("lies on a network file system (nfs)"));
}

#[test]
fn a_database_that_cannot_be_written_is_refused() {
    // Neither root nor anybody else makes files here.
    let path = PathBuf::from("/proc/jobs.db");
    let folder = folder();
    let said = refusal(&OpenOptions { path, ..options(&folder) });
    assert!(said.contains("cannot open database /proc/jobs.db"), "{said}");
}

#[test]
fn a_read_only_file_is_refused() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let folder = folder();
    drop(database(&folder));
    if std::fs::metadata(folder.path()).expect("it exists").uid() == 0 {
        eprintln_skip("root writes read-only files");
        return;
    }
    let read_only = std::fs::Permissions::from_mode(0o444);
    std::fs::set_permissions(&options(&folder).path, read_only).expect("it is ours");
    assert!(refusal(&options(&folder)).contains("read-only"));
}

#[test]
fn a_prefix_that_is_no_name_is_refused() {
    for prefix in ["1a", "a-b", "a b", "x;y", "sqlite_x", &"x".repeat(33)] {
        let error = schema::check_prefix(prefix).expect_err("it is refused");
        assert!(error.to_string().starts_with("table_prefix = "));
    }
}

#[test]
fn a_reader_works_alone_and_refuses_a_database_without_tables() {
    let folder = folder();
    let options = options(&folder);
    assert!(Reader::open(&options.path, "").is_err(), "nothing is made by reading");
    Direct::open(&options).expect("opened").enqueue(&[new_job("a")]).expect("inserted");
    // The last connection is closed, so the -wal and -shm files are gone.
    let wal = options.path.with_extension("db-wal");
    assert!(!wal.exists());
    let reader = Reader::open(&options.path, "").expect("it opens");
    assert_eq!(reader.counts().expect("counted").len(), 1);
    let said = Reader::open(&options.path, "other_").expect_err("no such tables").to_string();
    assert!(said.contains("has no table other_jobs"), "{said}");
}

#[expect(clippy::print_stderr, reason = "a skipped test says why")]
pub(super) fn eprintln_skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

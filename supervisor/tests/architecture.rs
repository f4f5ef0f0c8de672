//! ARCHITECTURE.md shows the state machines as they are.

use shiftboss::policy::machine::table::{run_table, worker_table};

/// The part of ARCHITECTURE.md between two marks.
fn documented(mark: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md");
    let page = std::fs::read_to_string(path).expect("the page is part of the repository");
    let begin = format!("<!-- {mark} table -->\n");
    let from = page.find(&begin).expect("the mark is there") + begin.len();
    let to = page[from..].find("<!-- end -->").expect("the mark is there") + from;
    page[from..to].to_owned()
}

#[test]
fn the_tables_in_architecture_are_those_of_the_code() {
    for (mark, table) in [("worker", worker_table()), ("attempt", run_table())] {
        assert_eq!(documented(mark), table, "put this between the marks:\n{table}");
    }
}

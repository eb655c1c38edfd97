//! Which fields are of a class is what the schema of that time said, whatever became of their names.

use super::questions::{found, size};
use super::*;
use crate::LeafFilter;

const MOBILE: &str = "13800138000";

#[tokio::test]
async fn what_was_read_of_a_class_is_found_by_the_names_that_its_fields_had_then() {
    let (_bench, vault) = Bench::new().await;
    let read_of = async |field: &str| {
        let token = store_one(&vault, field, MOBILE, "c-1").await;
        read_one(&vault, &token, "plain").await.unwrap();
        size(&vault) - 1
    };
    let apply = async |source: &str| {
        let schema = ApplySchema { source: source.to_owned(), dry_run: false };
        vault.apply_schema(&caller(Role::Officer), &schema).await.unwrap();
    };
    let before = read_of("borrower.mobile").await;
    let renamed = LENDING.replace("field.borrower.mobile", "field.borrower.phone");
    assert_ne!(renamed, LENDING);
    apply(&renamed).await;
    let after = read_of("borrower.phone").await;
    // Its old name is that of another field now, of another class.
    let other = "\n[field.borrower.mobile]\nnumber = 130\ntype = \"cn_mobile\"\nclass = \"c1\"\nretention = \"10y\"\n\
                 purposes = [\"kyc_review\"]\nviews = { plain = \"plain\" }\n";
    apply(&(renamed.clone() + other)).await;
    let of_other = read_of("borrower.mobile").await;
    apply(&renamed).await;
    vault.index_logs(None, u32::MAX).await.unwrap();
    let of_class = async |class: &str| {
        let filter = || LeafFilter { class: class.to_owned(), view: "plain".to_owned(), ..LeafFilter::default() };
        let end = size(&vault);
        let (by_index, told) = found(&vault, filter(), end, false).await;
        assert_eq!(found(&vault, filter(), end, true).await.0, by_index);
        (by_index, told.unwrap().to_json())
    };
    let (two, told) = of_class("c2").await;
    assert_eq!(two, [before, after], "{told}");
    assert!(told.contains("\"borrower.mobile 1-1\"") && told.contains("\"borrower.phone 2-\""), "{told}");
    let (one, told) = of_class("c1").await;
    assert_eq!(one, [of_other], "{told}");
    assert!(told.contains("\"borrower.mobile 3-3\""), "{told}");
}

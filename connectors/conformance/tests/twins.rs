//! The battery checked against itself: the honest scripted connector passes every check, and each failing twin fails
//! exactly the check of the promise it breaks.

use tidemark_conformance::scripted::{Flaw, ScriptedFixture};

/// Runs `test` in a process of its own: R7 measures the process.
fn alone(name: &str, test: impl Future<Output = ()>) {
    if tidemark_conformance::in_own_process(name).expect("passes in its own process") {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(test);
    }
}

#[test]
fn the_honest_connector_passes_every_check() {
    alone("the_honest_connector_passes_every_check", honest());
}

async fn honest() {
    let report = tidemark_conformance::run(ScriptedFixture::new(None)).await;
    println!("{report}");
    assert_eq!(report.passed(), (1..=12).collect::<Vec<_>>(), "{report}");
    report.require_with(true).expect("everything ran");
}

#[test]
fn every_promise_has_a_failing_twin() {
    for number in 1..=12 {
        assert!(Flaw::ALL.iter().any(|flaw| flaw.breaks() == number), "no twin breaks R{number}");
    }
}

/// Runs the whole battery against a twin.
async fn twin(flaw: Flaw) {
    let report = tidemark_conformance::run(ScriptedFixture::new(Some(flaw))).await;
    println!("{report}");
    assert_eq!(report.failed(), [flaw.breaks()], "{report}");
    assert_eq!(report.passed().len(), 11, "{report}");
}

macro_rules! twins {
    ($($test:ident: $flaw:ident,)*) => {
        $(
            #[test]
            fn $test() {
                alone(stringify!($test), twin(Flaw::$flaw));
            }
        )*

        #[test]
        fn every_flaw_is_tried() {
            let tried = [$(Flaw::$flaw),*];
            assert!(Flaw::ALL.iter().all(|flaw| tried.contains(flaw)));
        }
    };
}

twins! {
    order_of_beginning: OrderOfBeginning,
    drops_truncation: DropsTruncation,
    loses_first_after_resume: LosesFirstAfterResume,
    skips_rest_of_transaction: SkipsRestOfTransaction,
    acknowledges_too_much: AcknowledgesTooMuch,
    not_cancel_safe: NotCancelSafe,
    early_barrier: EarlyBarrier,
    starts_from_now: StartsFromNow,
    takes_any_log: TakesAnyLog,
    skips_acknowledged: SkipsAcknowledged,
    null_for_unchanged: NullForUnchanged,
    null_in_deletes: NullInDeletes,
    key_update_as_update: KeyUpdateAsUpdate,
    upsert_before_delete: UpsertBeforeDelete,
    panics_on_malformed: PanicsOnMalformed,
    skips_malformed: SkipsMalformed,
    buffers_transaction: BuffersTransaction,
    one_giant_batch: OneGiantBatch,
    unbounded_chunk: UnboundedChunk,
    writes_watermarks: WritesWatermarks,
    value_in_error: ValueInError,
    value_in_log: ValueInLog,
    secret_in_error: SecretInError,
    leaves_slot: LeavesSlot,
    leaves_session_on_drop: LeavesSessionOnDrop,
    snapshot_trims: SnapshotTrims,
    pages_by_first_key_column: PagesByFirstKeyColumn,
    fetches_in_table_order: FetchesInTableOrder,
    finds_one_page: FindsOnePage,
    newest_schema: NewestSchema,
    unannounced_schema: UnannouncedSchema,
}

//! The battery's fixture over the scripted source.

use super::connector::SLOT;
use super::source::{Slot, Source};
use super::{Flaw, Scripted};
use crate::fixture::{
    Cell, ColumnKind, Corpus, Disturbance, ExpectedCell, Fixture, FixtureError, FixtureResult, Hostile, Leftover, Op,
    Step, TableDef,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tidemark_contract::{Connector, TableId, TableRequest};

const PASSWORD: &str = "s3cr3t/pass+word";
const WRONG_PASSWORD: &str = "wr0ng/pass+word";

/// Drives a [`Source`], with a connector that has a flaw or none.
pub struct ScriptedFixture {
    source: Arc<Source>,
    elsewhere: Arc<Source>,
    flaw: Option<Flaw>,
}

impl ScriptedFixture {
    /// A fixture whose connectors have `flaw`.
    pub fn new(flaw: Option<Flaw>) -> Arc<Self> {
        Arc::new(Self { source: Source::new("here"), elsewhere: Source::new("elsewhere"), flaw })
    }

    fn scripted(&self, source: &Arc<Source>, password: &str, damage: Option<u64>) -> Arc<dyn Connector> {
        Arc::new(Scripted {
            source: source.clone(),
            flaw: self.flaw,
            damage,
            password: password.into(),
            wanted_password: PASSWORD.into(),
        })
    }
}

/// The corpus tables: one of values, one of two-column keys.
fn corpora() -> Vec<(TableDef, Corpus, Vec<Op>)> {
    let values = TableDef::new(
        "corpus_values",
        1,
        &[("id", ColumnKind::Int), ("touched", ColumnKind::Int), ("word", ColumnKind::Text)],
    );
    let words = [Cell::Null, Cell::text(""), Cell::text(" spaces "), Cell::text("null"), Cell::text("ünï\n\t\"\\")];
    let insert = |(id, word): (usize, &Cell)| {
        Op::insert("corpus_values", &[Cell::Int(i64::try_from(id).unwrap_or(0)), Cell::Int(0), word.clone()])
    };
    let rows = words.iter().enumerate().map(insert).collect();
    let pairs =
        TableDef::new("corpus_pairs", 2, &[("a", ColumnKind::Text), ("b", ColumnKind::Int), ("n", ColumnKind::Int)]);
    let pair =
        |n: i64| Op::insert("corpus_pairs", &[Cell::text(["x", "y"][(n % 2) as usize]), Cell::Int(n), Cell::Int(0)]);
    let expected = ExpectedCell { key: "integer 2".into(), column: "word".into(), shown: "text  spaces ".into() };
    let corpus = |def: &TableDef, counter: &str, expected| Corpus {
        label: def.name.clone(),
        request: request(def),
        counter: Some(counter.into()),
        expected,
    };
    let first = corpus(&values, "touched", vec![expected]);
    let second = corpus(&pairs, "n", Vec::new());
    vec![(values, first, rows), (pairs, second, (0..9).map(pair).collect())]
}

fn request(table: &TableDef) -> TableRequest {
    TableRequest { table: TableId::new("script", table.name.as_str()), columns: None, key: None }
}

#[async_trait]
impl Fixture for ScriptedFixture {
    fn name(&self) -> String {
        self.flaw.map_or("the scripted connector".into(), |flaw| format!("the scripted connector with {flaw:?}"))
    }

    fn connector(&self) -> Arc<dyn Connector> {
        self.scripted(&self.source, PASSWORD, None)
    }

    fn request(&self, table: &TableDef) -> TableRequest {
        request(table)
    }

    async fn reset(&self, tables: &[TableDef]) -> FixtureResult<()> {
        self.source.reset(tables);
        Ok(())
    }

    async fn run(&self, steps: &[Step]) -> FixtureResult<()> {
        steps.iter().try_for_each(|step| self.source.step(step)).map_err(FixtureError)
    }

    async fn disturb(&self, how: Disturbance) -> FixtureResult<bool> {
        let mut state = self.source.state();
        state.slots.remove(SLOT);
        if how == Disturbance::Recreate {
            let slot = Slot { id: state.number(), confirmed: state.log.len() };
            state.slots.insert(SLOT.into(), slot);
        }
        Ok(true)
    }

    async fn foreign(&self, tables: &[TableDef]) -> FixtureResult<Option<Arc<dyn Connector>>> {
        self.elsewhere.reset(tables);
        Ok(Some(self.scripted(&self.elsewhere, PASSWORD, None)))
    }

    async fn leftovers(&self) -> FixtureResult<BTreeSet<Leftover>> {
        let state = self.source.state();
        let slots = state.slots.keys().map(|name| Leftover { kind: "slot".into(), name: name.clone() });
        let session = |id: &u64| Leftover { kind: "session".into(), name: id.to_string() };
        Ok(slots.chain(state.sessions.iter().map(session)).collect())
    }

    async fn contents(&self) -> FixtureResult<BTreeMap<String, String>> {
        let state = self.source.state();
        let sum = |table: &crate::ModelTable| {
            let mut hasher = DefaultHasher::new();
            table.rows.values().for_each(|row| format!("{row:?}").hash(&mut hasher));
            format!("{} rows, {:x}", table.rows.len(), hasher.finish())
        };
        let mut all: BTreeMap<_, _> =
            state.model.tables.iter().map(|(name, table)| (name.clone(), sum(table))).collect();
        // Writes that were taken back leave their trace in the log.
        all.insert("transactions".into(), state.log.len().to_string());
        Ok(all)
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.into(), WRONG_PASSWORD.into()]
    }

    async fn broken(&self) -> FixtureResult<Vec<(String, Arc<dyn Connector>)>> {
        Ok(vec![("a wrong password".into(), self.scripted(&self.source, WRONG_PASSWORD, None))])
    }

    async fn hostile(&self, seed: u64) -> FixtureResult<Option<Hostile>> {
        let connector = self.scripted(&self.source, PASSWORD, Some(seed));
        Ok(Some(Hostile { connector, must_fail: true }))
    }

    fn hostile_seeds(&self) -> u64 {
        9
    }

    async fn create_corpora(&self) -> FixtureResult<Vec<Corpus>> {
        let all = corpora();
        all.iter().for_each(|(table, ..)| self.source.create(table));
        Ok(all.into_iter().map(|(_, corpus, _)| corpus).collect())
    }

    async fn load_corpus(&self, corpus: &Corpus) -> FixtureResult<()> {
        for (_, one, rows) in corpora() {
            if one.label == corpus.label {
                self.apply(&rows).await?;
            }
        }
        Ok(())
    }

    async fn touch_corpus(&self, corpus: &Corpus) -> FixtureResult<()> {
        let Some(counter) = &corpus.counter else { return Ok(()) };
        let keys: Vec<Vec<Cell>> = match self.source.state().model.tables.get(&corpus.label) {
            Some(table) => table.rows.keys().cloned().collect(),
            None => Vec::new(),
        };
        let touch = |key: &Vec<Cell>| Op::update(&corpus.label, key, &[(counter, Cell::Int(1))]);
        self.apply(&keys.iter().map(touch).collect::<Vec<_>>()).await
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }
}

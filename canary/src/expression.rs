//! A CEL expression over an answer, bounded: whoever writes a spec must not be able to keep its operator busy.
//!
//! The library counts neither steps nor bytes, and copies what it passes on. So length and answer are bounded, and so is what
//! multiplies them: `all`, `exists` and `exists_one` are neither within one another nor one behind the other, and compare items with
//! what is small; `map` and `filter` there are none. Parser and evaluation descend as deep as the text does, on a stack of their own.

use std::collections::HashMap;

use cel::{
    Context, IdedExpr, Program, Value as CelValue,
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue},
};

use serde_json::Value;

use crate::{answer::Answer, nonce::Nonce};

/// Largest answer that an expression is given, in bytes of JSON.
pub(crate) const MAX_BYTES: usize = 16 * 1024;

/// Longest expression, in bytes.
const MAX_SOURCE: usize = 2048;

/// Stack on which the longest expression is read and evaluated, in bytes; only what is used of it is memory.
const STACK: usize = 256 * 1024 * 1024;

/// What an expression may name.
const VARIABLES: [&str; 4] = ["text", "structured", "result", "nonce"];

/// Those that are as large as the answer.
const WHOLE: [&str; 3] = ["text", "structured", "result"];

/// What may be called for every item of a list: nothing that makes a copy of what it is given, or reads a pattern anew.
const CHEAP: [&str; 25] = [
    "_==_",
    "_!=_",
    "_<_",
    "_<=_",
    "_>_",
    "_>=_",
    "_&&_",
    "_||_",
    "!_",
    "-_",
    "_-_",
    "_*_",
    "_/_",
    "_%_",
    "_?_:_",
    "_[_]",
    "@in",
    "@not_strictly_false",
    "contains",
    "startsWith",
    "endsWith",
    "size",
    "int",
    "uint",
    "double",
];

/// What else may be called, once.
const OTHERS: [&str; 8] = [SUM, "matches", "string", "bytes", "max", "min", "timestamp", "duration"];

const SUM: &str = "_+_";

/// An expression that can be evaluated.
#[derive(Debug)]
pub(crate) struct Expression(Program);

impl Expression {
    /// Reads `source`.
    pub(crate) fn compile(source: &str) -> Result<Self, String> {
        if source.len() > MAX_SOURCE {
            return Err(format!("an expression of {} bytes: write {MAX_SOURCE} at most", source.len()));
        }
        on_deep_stack(|| Self::read(source))
    }

    fn read(source: &str) -> Result<Self, String> {
        let program = Program::compile(source).map_err(|errors| format!("not a CEL expression: {}", brief(&errors)))?;
        Scope { names: VARIABLES.to_vec(), body_of: None, is_within: false }.check(program.expression())?;
        Ok(Self(program))
    }

    /// What it says of `answer`: `Err` where it says nothing, or something else than true or false.
    pub(crate) fn holds(&self, answer: &Answer, nonce: &Nonce) -> Result<bool, String> {
        let size = answer.result.to_string().len();
        if size > MAX_BYTES {
            return Err(format!("an answer of {size} bytes, and cel is given {MAX_BYTES} at most"));
        }
        let mut context = Context::default();
        context.add_variable_from_value("structured", answer.structured.as_ref().map_or(CelValue::Null, value));
        context.add_variable_from_value("result", value(&answer.result));
        context.add_variable_from_value("text", answer.text.clone());
        context.add_variable_from_value("nonce", nonce.as_str().to_owned());
        match on_deep_stack(|| Ok(self.0.execute(&context)))? {
            Ok(CelValue::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("cel gives {}, neither true nor false", other.type_of())),
            Err(error) => Err(format!("cel fails: {}", crate::answer::short(&error.to_string()))),
        }
    }
}

/// The CEL value of a JSON value. The library holds 3 and 3.0 and 3u for different: a whole number is an int, however it is
/// written.
fn value(json: &Value) -> CelValue {
    /// Below, every whole number is itself as a double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match json {
        Value::Null => CelValue::Null,
        Value::Bool(truth) => CelValue::Bool(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64().unwrap_or(f64::NAN)) {
            (Some(int), ..) => CelValue::Int(int),
            (None, Some(uint), _) => CelValue::UInt(uint),
            #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
            (None, None, double) if double.fract() == 0.0 && double.abs() < EXACT => CelValue::Int(double as i64),
            (None, None, double) => CelValue::Float(double),
        },
        Value::String(text) => CelValue::String(text.clone().into()),
        Value::Array(items) => CelValue::List(items.iter().map(value).collect::<Vec<_>>().into()),
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), value(member))).collect::<HashMap<_, _>>().into()
        }
    }
}

/// Runs `work`, which may descend deep.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("cel".into()).stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| format!("there is no thread to read it on: {error}"))?;
        thread.join().unwrap_or_else(|_| Err("the CEL library failed on it".into()))
    })
}

fn is_name(part: &IdedExpr, name: &str) -> bool {
    matches!(&part.expr, Expr::Ident(known) if known == name)
}

fn is_whole(part: &IdedExpr) -> bool {
    WHOLE.iter().any(|name| is_name(part, name))
}

/// Where a part of an expression stands.
#[derive(Clone)]
struct Scope<'a> {
    /// What has a name here.
    names: Vec<&'a str>,
    /// What the comprehension gathers in whose body this is.
    body_of: Option<&'a str>,
    /// Whether a comprehension is around it.
    is_within: bool,
}

impl<'a> Scope<'a> {
    /// Refuses what does not exist, and what may cost more than the size of the answer times that of the expression.
    fn check(&self, part: &'a IdedExpr) -> Result<(), String> {
        match &part.expr {
            Expr::Ident(name) if self.body_of.is_some() && WHOLE.contains(&name.as_str()) => {
                Err(format!("all of {name} for every item of a list costs too much: name a member of it"))
            }
            Expr::Ident(name) => self.check_name(name),
            // A member of an answer is less than all of it.
            Expr::Select(select) if is_whole(&select.operand) => Ok(()),
            Expr::List(_) | Expr::Map(_) if self.body_of.is_some() => {
                Err("a list for every item of a list costs too much: compare, or ask contains or size".into())
            }
            Expr::Call(call) => {
                self.check_call(call)?;
                call.target.iter().map(AsRef::as_ref).chain(&call.args).try_for_each(|part| self.check(part))
            }
            Expr::Comprehension(comprehension) => self.check_comprehension(comprehension),
            Expr::Select(select) => self.check(&select.operand),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.check(element)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => self.check(&entry.key).and_then(|()| self.check(&entry.value)),
                EntryExpr::StructField(field) => self.check(&field.value),
            }),
            Expr::Struct(structure) => Err(format!("there is no type {}", structure.type_name)),
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
        }
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        if self.names.contains(&name) {
            return Ok(());
        }
        Err(format!("there is no {name}: an expression has {}", VARIABLES.join(", ")))
    }

    fn check_call(&self, call: &CallExpr) -> Result<(), String> {
        let name = call.func_name.as_str();
        if CHEAP.contains(&name) {
            return Ok(());
        }
        let Some(gathered) = self.body_of else {
            return if OTHERS.contains(&name) { Ok(()) } else { Err(format!("there is no function {name}")) };
        };
        // `exists_one` is read as a sum of ones; `map` and `filter` as one of lists.
        let is_one = |added: &IdedExpr| matches!(added.expr, Expr::Literal(LiteralValue::Int(_)));
        match call.args.as_slice() {
            [gatherer, added] if name == SUM && is_name(gatherer, gathered) && is_one(added) => Ok(()),
            [gatherer, _] if name == SUM && is_name(gatherer, gathered) => {
                Err("map and filter cost too much: ask all, exists or exists_one".into())
            }
            _ => Err(format!(
                "{} for every item of a list costs too much: compare, or ask contains or size",
                name.trim_matches('_')
            )),
        }
    }

    fn check_comprehension(&self, comprehension: &'a ComprehensionExpr) -> Result<(), String> {
        if self.is_within {
            return Err(
                "all, exists and exists_one within one another cost too much: write one beside the other".into()
            );
        }
        let ComprehensionExpr { iter_range, iter_var, iter_var2, accu_var, accu_init, loop_cond, loop_step, result } =
            comprehension;
        let mut inner = self.clone();
        inner.is_within = true;
        inner.check(iter_range)?;
        inner.check(accu_init)?;
        inner.names.extend([iter_var.as_str(), accu_var.as_str()]);
        inner.names.extend(iter_var2.as_deref());
        inner.check(result)?;
        inner.body_of = Some(accu_var);
        inner.check(loop_cond)?;
        inner.check(loop_step)
    }
}

/// The parser writes a line for each error, and draws where it is.
fn brief(errors: &impl std::fmt::Display) -> String {
    let text = errors.to_string();
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(text: &str, structured: Option<Value>) -> Answer {
        let result = json!({"content": [{"type": "text", "text": text}], "structuredContent": structured});
        Answer { text: text.into(), structured, result }
    }

    fn holds(source: &str, answer: &Answer) -> Result<bool, String> {
        Expression::compile(source).unwrap_or_else(|error| panic!("{source}: {error}")).holds(answer, &Nonce::sample())
    }

    #[test]
    fn an_expression_has_the_text_the_structure_the_result_and_the_nonce() {
        let answer = answer("42 cows", Some(json!({"rows": [{"price": 1.5}, {"price": 3.0}], "n": 2})));
        for source in [
            "text.contains('42')",
            "text.matches('^[0-9]+ cows$') && size(text) == 7",
            "structured.n == 2 && structured.rows[1].price == 3",
            "structured.rows.all(row, row.price > 1)",
            "structured.rows.exists(row, row.price == 3 && row.price > structured.n)",
            "structured.rows.exists_one(row, row.price == 3)",
            "has(structured.n) && !has(structured.m)",
            "result.content[0].text == text",
            "nonce == '0123456789abcdef'",
            "('a' + text).startsWith('a4')",
            "2 in [1, 2] ? true : false",
        ] {
            assert_eq!(holds(source, &answer), Ok(true), "{source}");
        }
        assert_eq!(holds("structured == null", &self::answer("x", None)), Ok(true));
        assert_eq!(holds("text == 'other'", &answer), Ok(false));
    }

    #[test]
    fn what_is_neither_true_nor_false_says_so() {
        let answer = answer("x", None);
        assert!(holds("text", &answer).is_err_and(|error| error.contains("neither true nor false")));
        assert!(holds("structured.rows[0] == 1", &answer).is_err_and(|error| error.starts_with("cel fails")));
        assert!(holds("1 / 0 == 1", &answer).is_err_and(|error| error.starts_with("cel fails")));
    }

    #[test]
    fn what_cannot_be_evaluated_is_refused_beforehand() {
        for (source, said) in [
            ("text.contains('x'", "not a CEL expression"),
            ("answer == 'x'", "there is no answer: an expression has text, structured, result, nonce"),
            ("text.contain('x')", "there is no function contain"),
            ("Thing{a: 1} == 2", "there is no type Thing"),
            ("", "not a CEL expression"),
        ] {
            let error = Expression::compile(source).expect_err(source);
            assert!(error.contains(said) && !error.contains('\n'), "{source}: {error}");
        }
    }

    #[test]
    fn nobody_can_write_an_expression_that_takes_for_ever() {
        for source in [
            "result.content.all(a, result.content.all(b, a == b))",
            "result.content.map(a, text + text).size() > 0",
            "[1].map(a, [a, a]).map(a, [a, a]).size() > 0",
            "result.content.filter(a, true).size() > 0",
            "result.content.all(a, [a, a] == a)",
            "result.content.all(a, a in result)",
            "result.content.all(a, a == structured)",
            "result.content.all(a, text.contains(a.text))",
            "result.content.all(a, a.text.matches('x'))",
            "[1, 2].exists(a, bytes(nonce) == a)",
            "result.content.filter(a, true).all(a, true)",
        ] {
            let error = Expression::compile(source).expect_err(source);
            assert!(error.contains("too much"), "{source}: {error}");
        }
        let times = |text: &str| text.repeat(MAX_SOURCE / text.len());
        for source in [
            times("("),
            times("["),
            times("{1:"),
            times("!"),
            times("-"),
            times("size("),
            format!("text{}", times(".a")),
            format!("1{}", times("+1")),
            format!("true{}", times("&&true")),
            format!("true{}0", times("?1:true")),
            format!("{}true{}", "!(".repeat(600), ")".repeat(600)),
            times("a"),
            times("'"),
        ] {
            let source = &source[..source.len().min(MAX_SOURCE)];
            // Whatever it says of it, and whatever comes of it: it ends.
            if let Ok(expression) = Expression::compile(source) {
                let _ = expression.holds(&answer("x", None), &Nonce::sample());
            }
        }
        assert!(Expression::compile(&"x".repeat(MAX_SOURCE + 1)).is_err_and(|error| error.contains("2048 at most")));
        let long = answer(&"x".repeat(MAX_BYTES), None);
        assert!(holds("text == 'x'", &long).is_err_and(|error| error.contains("is given 16384 at most")));
    }
}

//! A JSON object, read field by field: what is absent or null is `None`, what has the wrong type is a 400 that names the field.

use super::error::ApiError;
use serde_json::{Map, Value};

/// An object, and where in the request it stands.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> Fields<'a> {
    /// The object at `path`; the request itself has an empty one.
    pub(super) fn new(value: &'a Value, path: &'a str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Fields { map, path }),
            other if path.is_empty() => Err(ApiError::not_json(format!("it is {}", kind(other)))),
            other => Err(wrong(path, "an object", other)),
        }
    }

    /// The field's place in the request, as errors name it.
    pub(super) fn place(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The field as it is.
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Every field that is not null.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.as_str(), value))
    }

    fn get<T>(&self, name: &str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| wrong(&self.place(name), what, value))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.get(name, "a string", Value::as_str)
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.get(name, "true or false", Value::as_bool)
    }

    pub(super) fn float(&self, name: &str) -> Result<Option<f64>, ApiError> {
        self.get(name, "a number", Value::as_f64)
    }

    pub(super) fn whole(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name, "a whole number", Value::as_i64)
    }

    /// A whole number within `range`.
    pub(super) fn count_in(&self, name: &str, range: std::ops::RangeInclusive<u32>) -> Result<Option<u32>, ApiError> {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        self.get(name, &what, |value| u32::try_from(value.as_u64()?).ok().filter(|n| range.contains(n)))
    }

    pub(super) fn list(&self, name: &str) -> Result<Option<&'a [Value]>, ApiError> {
        self.get(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// A field that must be there.
    pub(super) fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, ApiError> {
        value.ok_or_else(|| ApiError::field(self.place(name), format!("{} is missing", self.place(name))))
    }
}

/// A refusal of `value` at `place`, where `what` should be.
pub(super) fn wrong(place: &str, what: &str, value: &Value) -> ApiError {
    ApiError::field(place, format!("{place} must be {what}, not {}", kind(value)))
}

/// What a value is, without quoting it: it may be a piece of the prompt.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn wrong_types_name_the_field() {
        let value = json!({ "n": "two", "t": 0.5, "gone": null, "big": 9 });
        let fields = Fields::new(&value, "").unwrap();
        let error = fields.count_in("n", 1..=8).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("n"));
        assert_eq!(error.message, "n must be a whole number from 1 to 8, not a string");
        assert!(fields.whole("t").is_err());
        assert_eq!(fields.float("t").unwrap(), Some(0.5));
        assert_eq!(fields.text("gone").unwrap(), None);
        assert!(fields.count_in("big", 1..=8).is_err());
        let inner = Fields { path: "messages[0]", ..fields };
        assert_eq!(inner.text("n").unwrap(), Some("two"));
        assert_eq!(inner.required("role", None::<()>).unwrap_err().param.as_deref(), Some("messages[0].role"));
        assert!(Fields::new(&json!([]), "").is_err());
    }
}

//! Which elements of a request a response answers one by one, and what it repeats of them.

use crate::codec::Value;
use crate::request::field;
use crate::schema::Type;

/// A value of a request: its body, or an element of an array in it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub shape: &'a Type,
    pub value: &'a Value,
    /// The array that it is an element of, empty for the body.
    pub array: &'a str,
}

/// The arrays of requests that an array of responses answers, element by element.
fn arrays(name: &str) -> &'static [&'static str] {
    match name {
        "responses" => &["topics", "topic_data", "topic_names", "resources"],
        "partition_responses" => &["partition_data"],
        "partitions" | "results_by_partition" | "partition_result" => {
            &["partitions", "partition_indexes"]
        }
        "topics" | "topic_results" => &["topics"],
        "groups" => &["groups", "group_ids"],
        "coordinators" => &["coordinator_keys"],
        "results" => {
            &["topics", "resources", "creations", "groups_names", "deletions", "upsertions", "dirs"]
        }
        "filter_results" => &["filters"],
        "results_by_topic_v3_and_below" => &["v3_and_below_topics"],
        "results_by_transaction" => &["transactions"],
        "replica_election_results" => &["topic_partitions"],
        "transaction_states" => &["transactional_ids"],
        "entries" => &["entries"],
        "entity" => &["entity"],
        _ => &[],
    }
}

impl<'a> Asked<'a> {
    /// What the response array `name` has to answer; nothing where its elements have no place for
    /// an error, for then the error belongs further up.
    pub fn answered_by(self, name: &str, element: &Type) -> Vec<Self> {
        // A client tells entries of quotas apart by their entity; `DescribeLogDirs` answers about
        // directories, whatever topics it was asked about.
        let answers = name == "entity" || carries_error(element);
        if !answers || element.field("log_dir").is_some() {
            return Vec::new();
        }
        arrays(name).iter().flat_map(|array| self.elements(array)).collect()
    }

    fn elements(self, array: &str) -> Vec<Self> {
        let Type::Struct(fields) = self.shape else { return Vec::new() };
        let Some((name, Type::Array { element, .. })) =
            fields.iter().find_map(|(name, shape)| (&**name == array).then_some((name, shape)))
        else {
            return Vec::new();
        };
        let items = field(self.shape, self.value, array).map_or(&[][..], Value::items);
        let items = items.iter().map(|value| Self { shape: element, value, array: name });
        if array == "dirs" {
            // The response names their topics only.
            return items.flat_map(|dir| dir.elements("topics")).collect();
        }
        items.collect()
    }

    pub fn is_struct(self) -> bool {
        matches!(self.value, Value::Struct(_))
    }

    /// What a response's field repeats of this, by which the client knows what is answered.
    pub fn repeated(self, name: &str) -> Option<&'a Value> {
        let names: &[&str] = match name {
            "name" | "topic" | "topic_name" => &["name", "topic", "topic_name"],
            _ if is_partition(name) => &["partition_index", "partition", "index"],
            "user" => &["name"],
            "key" => &["key"],
            "group_id" => &["group_id"],
            "topic_id" => &["topic_id"],
            "transactional_id" => &["transactional_id"],
            "resource_type" => &["resource_type"],
            "resource_name" => &["resource_name"],
            "entity_type" => &["entity_type"],
            "entity_name" => &["entity_name"],
            _ => return None,
        };
        match self.value {
            Value::Struct(_) => names.iter().find_map(|name| field(self.shape, self.value, name)),
            bare => Some(bare),
        }
    }
}

fn is_partition(name: &str) -> bool {
    matches!(name, "partition" | "partition_index" | "partition_id" | "index")
}

/// Whether there is a place for an error in it.
pub fn carries_error(shape: &Type) -> bool {
    match shape {
        Type::Array { element, .. } => carries_error(element),
        Type::Struct(fields) => {
            fields.iter().any(|(name, shape)| name.ends_with("error_code") || carries_error(shape))
        }
        _ => false,
    }
}

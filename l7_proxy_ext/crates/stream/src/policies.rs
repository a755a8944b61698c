//! The policies in force.

use arc_swap::ArcSwap;
use foldhash::HashMap;
use sidegate_policy::Endpoint;
use sidegate_proto::v1;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Policies by endpoint id: one writer, any number of readers that never wait.
#[derive(Default)]
pub struct Policies {
    endpoints: ArcSwap<HashMap<u32, Arc<Endpoint>>>,
    generation: AtomicU64,
}

impl Policies {
    pub fn get(&self, endpoint_id: u32) -> Option<Arc<Endpoint>> {
        self.endpoints.load().get(&endpoint_id).cloned()
    }

    /// The policy of a pod's own proxy, which is told of no other.
    pub fn only(&self) -> Option<Arc<Endpoint>> {
        self.endpoints.load().values().next().cloned()
    }

    /// Rises after each change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts a response in force for every later request.
    ///
    /// Gives back the policies that were refused; their endpoints are left without one.
    pub fn apply(&self, response: &v1::PolicyResponse) -> Vec<v1::EndpointError> {
        let mut endpoints = match response.full {
            true => HashMap::default(),
            false => HashMap::clone(&self.endpoints.load()),
        };
        let mut errors = Vec::new();
        for id in &response.removed_endpoint_ids {
            endpoints.remove(id);
        }
        for policy in &response.upserts {
            match Endpoint::compile(policy) {
                Ok(compiled) => _ = endpoints.insert(policy.endpoint_id, compiled.into()),
                Err(error) => {
                    endpoints.remove(&policy.endpoint_id);
                    errors.push(v1::EndpointError {
                        endpoint_id: policy.endpoint_id,
                        revision: policy.revision,
                        rule: error.rule,
                        message: error.message,
                    });
                }
            }
        }
        self.endpoints.store(endpoints.into());
        self.generation.fetch_add(1, Ordering::Release);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(endpoint_id: u32, revision: u64, method: &str) -> v1::EndpointPolicy {
        let http = v1::HttpRule { method: method.into(), ..Default::default() };
        let rule = v1::PortRule {
            any_peer: true,
            rule: "r".into(),
            l7: Some(v1::port_rule::L7::Http(v1::HttpRules { rules: vec![http] })),
            ..Default::default()
        };
        let ingress =
            v1::DirectionPolicy { enforced: true, rules: vec![rule], ..Default::default() };
        v1::EndpointPolicy { endpoint_id, revision, ingress: Some(ingress), ..Default::default() }
    }

    fn response(full: bool, upserts: Vec<v1::EndpointPolicy>) -> v1::PolicyResponse {
        v1::PolicyResponse { full, upserts, ..Default::default() }
    }

    fn revisions(policies: &Policies) -> Vec<Option<u64>> {
        (1..=3).map(|id| policies.get(id).map(|endpoint| endpoint.revision)).collect()
    }

    #[test]
    fn changes_are_cumulative_until_a_full_set() {
        let policies = Policies::default();
        policies.apply(&response(true, vec![policy(1, 1, "GET"), policy(2, 1, "GET")]));
        policies.apply(&response(false, vec![policy(2, 2, "PUT"), policy(3, 1, "GET")]));
        assert_eq!(revisions(&policies), [Some(1), Some(2), Some(1)]);
        policies.apply(&v1::PolicyResponse { removed_endpoint_ids: vec![1], ..Default::default() });
        assert_eq!(revisions(&policies), [None, Some(2), Some(1)]);
        policies.apply(&response(true, vec![policy(3, 5, "GET")]));
        assert_eq!(revisions(&policies), [None, None, Some(5)]);
        assert_eq!(policies.generation(), 4);
    }

    #[test]
    fn a_refused_policy_leaves_no_older_one_behind() {
        let policies = Policies::default();
        policies.apply(&response(true, vec![policy(1, 1, "GET"), policy(2, 1, "GET")]));
        let errors = policies.apply(&response(false, vec![policy(1, 2, "(")]));
        assert_eq!(revisions(&policies), [None, Some(1), None]);
        assert_eq!((errors.len(), errors[0].endpoint_id, errors[0].revision), (1, 1, 2));
        assert_eq!(errors[0].rule, "r");
    }
}

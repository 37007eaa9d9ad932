//! `/_sandbox`: looking into the sandbox and changing it while it runs.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::super::problem::Problem;
use super::super::{Fault, Identity, Person, Sandbox, lock};
use super::Answer;

pub(super) async fn requests(State(sandbox): State<Sandbox>) -> Json<Value> {
    Json(json!(sandbox.requests()))
}

pub(super) async fn state(State(sandbox): State<Sandbox>) -> Json<Value> {
    let faults = lock(&sandbox.shared.faults).list();
    let state = lock(&sandbox.shared.state);
    Json(json!({
        "people": state.people().collect::<Vec<_>>(),
        "identities": state.identities().collect::<Vec<_>>(),
        "connections": state.connections().collect::<Vec<_>>(),
        "faults": faults,
        "undocumented": state.undocumented.switches().map(|switch| switch.to_string()),
        "termsAccepted": state.terms_accepted,
        "planPaid": state.plan_paid,
    }))
}

pub(super) async fn people(State(sandbox): State<Sandbox>, Json(people): Json<Vec<Person>>) -> Json<Value> {
    let count = people.len();
    people.into_iter().for_each(|person| sandbox.put_person(person));
    Json(json!({ "put": count }))
}

pub(super) async fn identities(State(sandbox): State<Sandbox>, Json(identities): Json<Vec<Identity>>) -> Json<Value> {
    let count = identities.len();
    identities.into_iter().for_each(|identity| sandbox.put_identity(identity));
    Json(json!({ "put": count }))
}

pub(super) async fn faults(State(sandbox): State<Sandbox>, Json(rules): Json<Vec<String>>) -> Answer {
    let faults: Result<Vec<Fault>, _> = rules.iter().map(|rule| rule.parse()).collect();
    sandbox.set_faults(faults.map_err(|invalid| Problem::validation(invalid.to_string()))?);
    Ok(Json(json!({ "faults": lock(&sandbox.shared.faults).list() })))
}

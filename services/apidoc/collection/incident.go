package collection

func incident() chapter {
	here := map[string]string{"id": "{{incident_id}}"}
	return chapter{"Incidents", "A notebook: what is done under it is gathered, and told in one document.", []step{
		{
			op: "openIncident", auth: operator, title: "Open an incident", body: `{"title": "` + reason + `", "severity": "low"}`,
			holds: []holds{{"it is open", `answer.state === "open" && answer.notes.length === 0`}}, keep: []keep{{"incident_id", "id"}},
		},
		{
			op: "commitRevocation", auth: operator, title: "Revoke under it", query: map[string]string{"wait": wait}, want: []int{201},
			body:  `{"op": "revoke", "targets": ["token:{{run}}"], ` + because + `, "incident": "{{incident_id}}"}`,
			holds: []holds{{"it names the incident", `answer.incident === pm.collectionVariables.get("incident_id") && !answer.not_gathered`}},
		},
		{op: "addIncidentNote", auth: operator, title: "Write a note", path: here, body: `{"text": "` + reason + `"}`, want: []int{201}, holds: []holds{
			{"it is there, with who wrote it", `answer.notes.length === 1 && answer.notes[0].actor !== ""`},
		}},
		{op: "listIncidents", auth: operator, title: "List incidents", holds: []holds{
			{"it is there", `answer.items.some(function (one) { return one.id === pm.collectionVariables.get("incident_id"); })`},
		}},
		{op: "getIncident", auth: operator, title: "Show the notebook", path: here, holds: []holds{{"it has the note", `answer.notes.length === 1`}}},
		{op: "getIncidentReport", auth: operator, title: "Print its report", path: here, holds: []holds{
			{"it has the cut, signed", `answer.cuts.length === 1 && answer.cuts[0].jws.split(".").length === 3 && answer.whole`},
		}},
		{op: "closeIncident", auth: operator, title: "Close it", path: here, body: `{` + because + `}`, holds: []holds{{"it is closed", `answer.state === "closed"`}}},
	}}
}

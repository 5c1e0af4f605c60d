// Package ui is the admin's web pages. They are rendered on the server, work
// without scripts, and show and change everything through the methods of
// [appliance.Appliance].
//
// To add a page: its handler and what it shows in x.go, its looks in x.templ,
// one route below. Handlers take a request and return a reply or an error;
// page.go alone writes to the browser.
package ui

import (
	"log/slog"
	"net/http"

	"wuamesh/appliance"
)

// UI serves the pages of one node.
type UI struct {
	node    *appliance.Appliance
	log     *slog.Logger
	files   *assets
	history histories
}

// New returns the pages of node as one handler.
func New(node *appliance.Appliance, log *slog.Logger) http.Handler {
	u := &UI{node: node, log: log.With("part", "ui"), files: static, history: historiesOf(node)}
	mux := http.NewServeMux()
	mux.Handle("GET /a/", u.files)
	mux.Handle("GET /login", u.open(u.loginForm))
	mux.Handle("POST /login", u.open(u.login))
	mux.Handle("GET /setup", u.open(u.setupForm))
	mux.Handle("POST /setup", u.open(u.setup))
	mux.Handle("GET /setup/join", u.open(u.joinForm))
	mux.Handle("POST /setup/join", u.open(u.join))
	mux.Handle("POST /setup/test", u.open(u.setupTest))
	mux.Handle("GET /setup/joining", u.open(u.joining))
	mux.Handle("POST /logout", u.page(u.logout))
	mux.Handle("GET /switch", u.page(u.switchNode))
	mux.Handle("GET /handover", u.open(u.handOver))
	mux.Handle("GET "+standingPath, u.page(func(*http.Request) (reply, error) { return show(standingPage()), nil }))
	mux.Handle("POST /prefs/theme", u.page(u.theme))
	mux.Handle("POST /prefs/keys", u.page(u.keys))
	mux.HandleFunc("GET /events", u.events)

	mux.Handle("GET /{$}", u.page(func(*http.Request) (reply, error) { return goTo("/overview"), nil }))
	mux.Handle("GET /overview", u.page(u.overview))
	mux.Handle("GET /find", u.page(u.find))
	mux.Handle("GET /updates", u.page(u.updates))
	mux.Handle("POST /updates/bulk", u.page(u.updatesBulk))
	mux.Handle("POST /updates/rule", u.page(u.updatesRule))
	mux.Handle("GET /updates/{id}", u.page(u.update))
	mux.Handle("GET /updates/{id}/stop", u.page(u.stopForm))
	mux.Handle("POST /updates/{id}/stop", u.page(u.stopMake))
	mux.Handle("POST /updates/{id}/stop/undo", u.page(u.stopUndo))
	mux.Handle("POST /index/download", u.page(u.indexDownload))
	mux.Handle("POST /index/missing", u.page(u.indexMissing))
	for _, h := range []history{u.history.packages, u.history.groups, u.history.profiles} {
		h.handle(mux, u)
	}
	mux.Handle("GET /groups", u.page(u.groups))
	mux.Handle("GET /groups/new", u.page(u.groupNew))
	mux.Handle("POST /groups", u.page(u.groupSave))
	mux.Handle("GET /groups/{name}", u.page(u.group))
	mux.Handle("GET /groups/{name}/delete", u.page(u.groupDeleteForm))
	mux.Handle("GET /groups/{name}/versions/{version}", u.page(u.groupVersion))
	mux.Handle("POST /groups/{name}", u.page(u.groupSave))
	mux.Handle("GET /agents", u.page(u.agents))
	mux.Handle("POST /agents", u.page(u.agentsMake))
	mux.Handle("GET "+profilesPath, u.page(u.profiles))
	mux.Handle("POST "+profilesPath, u.page(u.profileSave))
	mux.Handle("GET "+profilesPath+"/new", u.page(u.profileNew))
	mux.Handle("GET "+profilesPath+"/{name}", u.page(u.profile))
	mux.Handle("POST "+profilesPath+"/{name}", u.page(u.profileSave))
	mux.Handle("GET "+profilesPath+"/{name}/delete", u.page(u.profileDeleteForm))
	mux.Handle("GET "+profilesPath+"/{name}/versions/{version}", u.page(u.profileVersion))
	mux.Handle("GET /downloads", u.page(u.downloads))
	mux.Handle("POST /downloads/retry", u.page(u.downloadsRetry))
	mux.Handle("POST /downloads/{id}", u.page(u.downloadSteer))
	mux.Handle("GET "+limitsPath, u.page(u.limits))
	mux.Handle("POST "+limitsPath, u.page(u.limitsSave))
	mux.Handle("POST "+limitsPath+"/open", u.page(u.linesOpen))
	mux.Handle("POST /downloads/upload", u.filePage(u.fileUpload))
	mux.Handle("GET /clean", u.page(u.cleanForm))
	mux.Handle("POST /clean", u.page(u.clean))
	mux.Handle("POST /files/delete", u.page(u.fileDelete))
	mux.Handle("GET /rules", u.page(u.rules))
	mux.Handle("GET /rules/new", u.page(u.ruleNew))
	mux.Handle("GET /rules/import", u.page(u.ruleFileForm))
	mux.Handle("POST /rules/import", u.page(u.ruleFileTake))
	mux.Handle("GET /rules/export", u.page(u.ruleFileGet))
	mux.Handle("GET /rules/{name}", u.page(u.rule))
	mux.Handle("POST /rules", u.page(u.ruleSave))
	mux.Handle("GET /rules/{name}/versions/{version}", u.page(u.version))
	mux.Handle("GET /rules/{name}/promote", u.page(u.promoteForm))
	mux.Handle("POST /rules/{name}/promote", u.page(u.promote))
	mux.Handle("POST /views", u.page(u.viewSave))
	mux.Handle("POST /views/{id}/delete", u.page(u.viewDrop))
	mux.Handle("POST /rules/{name}/ring", u.page(u.ringSave))
	mux.Handle("GET /hosts", u.page(u.hosts))
	mux.Handle("POST /hosts/actions", u.page(u.hostsAction))
	mux.Handle("POST /hosts/groups", u.page(u.membersSave))
	mux.Handle("GET /hosts/{id}", u.page(u.host))
	mux.Handle("POST /hosts/{id}/approve", u.page(u.hostApprove))
	mux.Handle("POST /hosts/{id}/remove", u.page(u.hostRemove))
	mux.Handle("GET /access", u.page(u.access))
	mux.Handle("POST /access/tokens", u.page(u.tokenMake))
	mux.Handle("POST /access/tokens/revoke", u.page(u.tokenRevoke))
	mux.Handle("POST /access/admins", u.page(u.adminSave))
	mux.Handle("POST /access/admins/delete", u.page(u.adminDelete))
	mux.Handle("POST /access/sessions/end", u.page(u.sessionsEnd))
	mux.Handle("POST /access/password", u.page(u.passwordChange))
	mux.Handle("GET /mesh", u.page(u.mesh))
	mux.Handle("POST /mesh/token", u.page(u.joinTokenMake))
	mux.Handle("POST /mesh/anchor", u.page(u.anchorBecome))
	mux.Handle("POST /mesh/resign", u.page(u.anchorResign))
	mux.Handle("POST /mesh/gossip-key", u.page(u.gossipRotate))
	mux.Handle("POST /mesh/met", u.page(u.metSettle))
	mux.Handle("POST /mesh/reviews", u.page(u.reviewDecide))
	mux.Handle("POST /mesh/{node}/remove", u.page(u.nodeRemove))
	mux.Handle("GET /mesh/passphrase", u.page(u.passphraseForm))
	mux.Handle("POST /mesh/passphrase", u.page(u.passphrase))
	mux.Handle("GET /mesh/repository-rules", u.page(u.repositoryRules))
	mux.Handle("POST /mesh/repository-rules", u.page(u.repositoryRuleSave))
	mux.Handle("GET /mesh/repository-rules/new", u.page(u.repositoryRuleNew))
	mux.Handle("GET /mesh/repository-rules/{id}", u.page(u.repositoryRule))
	mux.Handle("POST /mesh/repository-rules/{id}/move", u.page(u.repositoryRuleMove))
	mux.Handle("POST /mesh/repository-rules/{id}/delete", u.page(u.repositoryRuleDelete))
	mux.Handle("GET /audit", u.page(u.audit))
	mux.Handle("GET "+settingsPath, u.page(u.settings))
	mux.Handle("POST "+settingsPath+"/node", u.page(u.settingsNode))
	mux.Handle("POST "+settingsPath+"/test", u.page(u.settingsTest))
	mux.Handle("POST "+settingsPath+"/storage", u.page(u.settingsStorage))
	mux.Handle("POST "+settingsPath+"/compliance", u.page(u.settingsCompliance))
	u.routeTables(mux)
	mux.Handle("/", u.page(func(r *http.Request) (reply, error) {
		return reply{}, &appliance.Problem{Kind: appliance.NotFound, Msg: "There is no page " + r.URL.Path + ".", Hint: "The menu has all of them."}
	}))
	return http.NewCrossOriginProtection().Handler(headers(mux))
}

// headers are the same on every answer; nothing is ever loaded from outside
// of the node, and no script or style stands in a page.
func headers(next http.Handler) http.Handler {
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types wuamesh"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

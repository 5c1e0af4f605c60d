package microsofttest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"time"

	"wuamesh/appliance/microsoft/cab/cabtest"
)

// buildCab makes a scan cab in Microsoft's layout: index.xml, package.cab
// with the graph of revisions, and package2.cab with their fragments.
func buildCab(list []Update, at time.Time) []byte {
	var graph, locations bytes.Buffer
	fmt.Fprintf(&graph, `<?xml version="1.0" encoding="utf-8"?><OfflineSyncPackage xmlns="http://schemas.microsoft.com/msus/2004/02/OfflineSync" MinimumClientVersion="5.8.0.2678" ProtocolVersion="1.0" PackageId="%08x-0000-4000-8000-000000000000" SourceId="cc56dcba-9026-4399-8535-7a3c9bed7086" CreationDate="%s" PackageVersion="1.1"><Updates>`,
		uint32(at.Unix()), at.Format(time.RFC3339))
	revisions := map[string]int{}
	for i, u := range list {
		revisions[u.ID] = 2*i + 1001
	}
	superseded := map[string][]int{}
	for _, u := range list {
		for _, id := range u.Supersedes {
			superseded[id] = append(superseded[id], revisions[u.ID])
		}
	}
	var parts []member
	for i, c := range categories {
		parts = append(parts, writeCategory(&graph, c, i+1)...)
	}
	for _, u := range list {
		parts = append(parts, writeUpdate(&graph, u, revisions[u.ID], superseded[u.ID])...)
		for _, f := range u.Files {
			fmt.Fprintf(&locations, `<FileLocation Id="%s" Url="%s" />`, fileID(f), f.URL)
		}
	}
	fmt.Fprintf(&graph, `</Updates><FileLocations>%s</FileLocations></OfflineSyncPackage>`, locations.String())
	index := `<INDEX VERSION="1"><CABLIST XOR="0"><CAB NAME="package.cab" /><CAB NAME="package2.cab" RANGESTART="0" /></CABLIST></INDEX>`
	return cabinet(at, cabtest.None, []member{
		{"index.xml", []byte(index)},
		{"package.cab", cabinet(at, cabtest.LZX, []member{{"package.xml", graph.Bytes()}})},
		{"package2.cab", cabinet(at, cabtest.LZX, parts)},
	})
}

// writeCategory writes a product or a classification, which is a revision of
// its own, and returns its fragments.
func writeCategory(w *bytes.Buffer, c namedCategory, rev int) []member {
	fmt.Fprintf(w, `<Update CreationDate="2009-01-13T17:00:00Z" DefaultLanguage="en" UpdateId="%s" RevisionNumber="100" RevisionId="%d" DeploymentAction="Evaluate" IsSoftware="false" />`, c.ID, rev)
	return []member{
		{fmt.Sprintf(`c\%d`, rev), fmt.Appendf(nil, `<UpdateIdentity UpdateID="%s" RevisionNumber="100" /><Properties UpdateType="Category" />`, c.ID)},
		{fmt.Sprintf(`l\en\%d`, rev), fmt.Appendf(nil, `<LocalizedProperties><Language>en</Language><Title>%s</Title></LocalizedProperties>`, escape(c.Title))},
		{fmt.Sprintf(`x\%d`, rev), fmt.Appendf(nil, `<ExtendedProperties /><HandlerSpecificData type="cat:Category"><CategoryInformation CategoryType="%s" /></HandlerSpecificData>`, c.kind)},
	}
}

// writeUpdate writes a bundle and its one leaf, which has the files, and
// returns their fragments: c/ relationships, l/en/ titles, x/ properties.
func writeUpdate(w *bytes.Buffer, u Update, rev int, supersededBy []int) []member {
	leaf := rev - 1
	created := u.Published.Format(time.RFC3339)
	fmt.Fprintf(w, `<Update CreationDate="%s" DefaultLanguage="en" UpdateId="%s" RevisionNumber="%d" RevisionId="%d" IsLeaf="true" DeploymentAction="Bundle"><PayloadFiles>`, created, leafID(u.ID), u.Revision, leaf)
	var files bytes.Buffer
	for _, f := range u.Files {
		fmt.Fprintf(w, `<File Id="%s" />`, fileID(f))
		sum, _ := hex.DecodeString(f.SHA256)
		fmt.Fprintf(&files, `<File Digest="%s" DigestAlgorithm="SHA1" FileName="%s" Size="%d" Modified="%s" PatchingType="SelfContained"><AdditionalDigest Algorithm="SHA256">%s</AdditionalDigest></File>`,
			fileID(f), f.Name, f.Size, created, base64.StdEncoding.EncodeToString(sum))
	}
	fmt.Fprintf(w, `</PayloadFiles><BundledBy><Revision Id="%d" /></BundledBy></Update>`, rev)
	fmt.Fprintf(w, `<Update CreationDate="%s" DefaultLanguage="en" UpdateId="%s" RevisionNumber="%d" RevisionId="%d" IsLeaf="true" IsBundle="true">`, created, u.ID, u.Revision, rev)
	if len(supersededBy) > 0 {
		w.WriteString("<SupersededBy>")
		for _, by := range supersededBy {
			fmt.Fprintf(w, `<Revision Id="%d" />`, by)
		}
		w.WriteString("</SupersededBy>")
	}
	fmt.Fprintf(w, `<Categories><Category Type="UpdateClassification" Id="%s" />`, u.Classification.ID)
	for _, p := range u.Products {
		fmt.Fprintf(w, `<Category Type="Product" Id="%s" />`, p.ID)
	}
	w.WriteString("</Categories></Update>")

	title := escape(u.Title)
	var cves bytes.Buffer
	for _, c := range u.CVEs {
		fmt.Fprintf(&cves, "<CveID>%s</CveID>", c)
	}
	var older bytes.Buffer
	for _, id := range u.Supersedes {
		fmt.Fprintf(&older, `<UpdateIdentity UpdateID="%s" />`, id)
	}
	return []member{
		{fmt.Sprintf(`c\%d`, rev), fmt.Appendf(nil, `<UpdateIdentity UpdateID="%s" RevisionNumber="%d" /><Properties UpdateType="Software" /><Relationships><SupersededUpdates>%s</SupersededUpdates><BundledUpdates><UpdateIdentity UpdateID="%s" RevisionNumber="%d" /></BundledUpdates></Relationships>`, u.ID, u.Revision, older.String(), leafID(u.ID), u.Revision)},
		{fmt.Sprintf(`l\en\%d`, rev), fmt.Appendf(nil, `<LocalizedProperties><Language>en</Language><Title>%s</Title><Description>Install this update to resolve issues in Windows.</Description></LocalizedProperties>`, title)},
		{fmt.Sprintf(`x\%d`, rev), fmt.Appendf(nil, `<ExtendedProperties MsrcSeverity="%s"><InstallationBehavior RebootBehavior="%s" /><SupportUrl>https://support.microsoft.com/help/%s</SupportUrl><SecurityBulletinID /><KBArticleID>%s</KBArticleID>%s</ExtendedProperties>`, u.Severity, reboots[u.Restart], u.KB, u.KB, cves.String())},
		{fmt.Sprintf(`x\%d`, leaf), fmt.Appendf(nil, `<ExtendedProperties /><Files>%s</Files>`, files.String())},
	}
}

// leafID is another GUID: its last digit differs.
func leafID(id string) string {
	last := len(id) - 1
	if id[last] == '0' {
		return id[:last] + "1"
	}
	return id[:last] + "0"
}

// reboots are Microsoft's words for an update's Restart.
var reboots = map[string]string{"never": "NeverReboots", "always": "AlwaysRequiresReboot", "maybe": "CanRequestReboot"}

func fileID(f File) string {
	sum, _ := hex.DecodeString(f.SHA1)
	return base64.StdEncoding.EncodeToString(sum)
}

func escape(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s))
	return b.String()
}

type member struct {
	name string
	data []byte
}

// cabinet packs members as Microsoft does: LZX inside, and stored what is
// compressed already.
func cabinet(at time.Time, method cabtest.Method, members []member) []byte {
	var out bytes.Buffer
	w := cabtest.NewWriter(&out, method)
	for _, m := range members {
		err := w.Create(m.name, at)
		if err == nil {
			_, err = w.Write(m.data)
		}
		if err != nil {
			panic(fmt.Sprintf("write the cabinet of a test: %v", err)) // in memory, of names and sizes of ours
		}
	}
	if err := w.Close(); err != nil {
		panic(fmt.Sprintf("write the cabinet of a test: %v", err))
	}
	return out.Bytes()
}

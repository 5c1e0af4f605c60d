package cabgen

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func esc(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s))
	return b.String()
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// packageXML writes the master document: one line, no titles.
func (w *world) packageXML(o io.Writer, created time.Time, packageID string) error {
	fmt.Fprintf(o, `<?xml version="1.0" encoding="utf-8"?><OfflineSyncPackage xmlns="http://schemas.microsoft.com/msus/2004/02/OfflineSync" MinimumClientVersion="5.8.0.2678" ProtocolVersion="1.0" PackageId="%s" SourceId="cc56dcba-9026-4399-8535-7a3c9bed7086" CreationDate="%s" PackageVersion="1.1"><Updates>`, packageID, stamp(created))
	var files []*file
	seen := map[*file]bool{}
	var b bytes.Buffer
	for _, u := range w.updates {
		if u.gone {
			continue
		}
		b.Reset()
		fmt.Fprintf(&b, `<Update CreationDate="%s" DefaultLanguage="en" UpdateId="%s" RevisionNumber="%d" RevisionId="%d"`, stamp(u.created), u.id, u.revNo, u.rev)
		switch u.kind {
		case catKind, detectoid:
			b.WriteString(` DeploymentAction="Evaluate" IsSoftware="false" />`)
		case bundle:
			b.WriteString(` IsLeaf="true" IsBundle="true">`)
		case leaf:
			b.WriteString(` IsLeaf="true" DeploymentAction="Bundle">`)
		}
		if u.kind != bundle && u.kind != leaf {
			o.Write(b.Bytes())
			continue
		}
		if len(u.files) > 0 {
			b.WriteString("<PayloadFiles>")
			for _, f := range u.files {
				fmt.Fprintf(&b, `<File Id="%s" />`, f.id())
				if !seen[f] {
					seen[f] = true
					files = append(files, f)
				}
			}
			b.WriteString("</PayloadFiles>")
		}
		b.WriteString("<Prerequisites>")
		for _, p := range u.prereqs {
			fmt.Fprintf(&b, `<UpdateId Id="%s" />`, p)
		}
		if len(u.prereqOr) > 0 {
			b.WriteString("<Or>")
			for _, p := range u.prereqOr {
				fmt.Fprintf(&b, `<UpdateId Id="%s" />`, p)
			}
			b.WriteString("</Or>")
		}
		b.WriteString("</Prerequisites>")
		if u.lang != "" {
			fmt.Fprintf(&b, `<Languages><Language Name="%s" /></Languages>`, u.lang)
		}
		revisions(&b, "BundledBy", u.bundledBy, nil)
		revisions(&b, "SupersededBy", u.supersededBy, u.dangling)
		if u.kind == bundle {
			fmt.Fprintf(&b, `<Categories><Category Type="UpdateClassification" Id="%s" /><Category Type="Company" Id="%s" /><Category Type="ProductFamily" Id="%s" />`, u.class, microsoft, u.family)
			for _, p := range u.products {
				fmt.Fprintf(&b, `<Category Type="Product" Id="%s" />`, p)
			}
			b.WriteString("</Categories>")
		}
		b.WriteString("</Update>")
		if _, err := o.Write(b.Bytes()); err != nil {
			return err
		}
	}
	io.WriteString(o, "</Updates><FileLocations>")
	for _, f := range files {
		fmt.Fprintf(o, `<FileLocation Id="%s" Url="%s" />`, f.id(), esc(f.url()))
	}
	_, err := io.WriteString(o, "</FileLocations></OfflineSyncPackage>")
	return err
}

func revisions(b *bytes.Buffer, name string, us []*update, extra []int) {
	var ids []int
	for _, u := range us {
		if !u.gone || len(u.supersedes) > 0 { // a reference may outlive its target
			ids = append(ids, u.rev)
		}
	}
	ids = append(ids, extra...)
	if len(ids) == 0 {
		return
	}
	fmt.Fprintf(b, "<%s>", name)
	for _, id := range ids {
		fmt.Fprintf(b, `<Revision Id="%d" />`, id)
	}
	fmt.Fprintf(b, "</%s>", name)
}

// indexXML maps revision ids to packageN.cab.
func (w *world) indexXML() []byte {
	var b bytes.Buffer
	b.WriteString(`<INDEX VERSION="1"><CABLIST XOR="0"><CAB NAME="package.cab" />`)
	for i, r := range w.bounds {
		fmt.Fprintf(&b, `<CAB NAME="package%d.cab" RANGESTART="%d"`, i+2, r)
		if i == 0 {
			b.WriteString(` FILESDIR="1"`)
		}
		b.WriteString(" />")
	}
	b.WriteString("</CABLIST></INDEX>")
	return b.Bytes()
}

// core is the c/ fragment: several root elements, so not an XML document.
func (u *update) core(seed uint64, size int) []byte {
	typ := map[kind]string{catKind: "Category", detectoid: "Detectoid", bundle: "Software", leaf: "Software"}[u.kind]
	b := fmt.Appendf(nil, `<UpdateIdentity UpdateID="%s" RevisionNumber="%d" /><Properties UpdateType="%s"`, u.id, u.revNo, typ)
	if u.kind == bundle {
		b = append(b, ` ExplicitlyDeployable="true" AutoSelectOnWebSites="true"`...)
	}
	b = append(b, " />"...)
	if u.kind == catKind {
		return b
	}
	if u.kind == detectoid {
		return fmt.Appendf(b, `<ApplicabilityRules><IsInstalled><b.And><b.WindowsVersion Comparison="GreaterThanOrEqualTo" MajorVersion="10" MinorVersion="0" /><b.Processor Architecture="9" /></b.And></IsInstalled></ApplicabilityRules>`)
	}
	b = append(b, "<Relationships>"...)
	list := func(ids []string) {
		for _, id := range ids {
			b = fmt.Appendf(b, `<UpdateIdentity UpdateID="%s" />`, id)
		}
	}
	if len(u.supersedes) > 0 {
		b = append(b, "<SupersededUpdates>"...)
		list(u.supersedes)
		b = append(b, "</SupersededUpdates>"...)
	}
	b = append(b, "<Prerequisites>"...)
	list(slices.DeleteFunc(slices.Clone(u.prereqs), func(id string) bool { return id == u.class || slices.Contains(u.products, id) }))
	if u.kind == bundle {
		b = fmt.Appendf(b, `<AtLeastOne IsCategory="true"><UpdateIdentity UpdateID="%s" /></AtLeastOne><AtLeastOne IsCategory="true">`, u.class)
		list(u.products)
		b = append(b, "</AtLeastOne>"...)
	}
	b = append(b, "</Prerequisites>"...)
	if len(u.children) > 0 {
		b = append(b, "<BundledUpdates>"...)
		for _, c := range u.children {
			b = fmt.Appendf(b, `<UpdateIdentity UpdateID="%s" RevisionNumber="%d" />`, c.id, c.revNo)
		}
		b = append(b, "</BundledUpdates>"...)
	}
	b = append(b, "</Relationships>"...)
	if u.kind != leaf {
		return b
	}
	// Applicability rules; for CBS this is a package manifest, which is what
	// makes the real file 25 GB when unpacked.
	r := rand.New(rand.NewPCG(seed, uint64(u.rev)))
	b = append(b, "<ApplicabilityRules><IsInstalled><CbsPackageInstalled /></IsInstalled><IsInstallable><CbsPackageInstallable /></IsInstallable><Metadata><CbsPackageApplicabilityMetadata>"...)
	fill := int(float64(size) * (0.25 + 1.5*r.Float64()))
	for n := len(b); len(b)-n < fill; {
		k := r.IntN(len(components) * 40)
		b = fmt.Appendf(b, `<update name="%d-%d_neutral_%s"><package integrate="hidden"><assemblyIdentity buildType="release" language="neutral" name="Microsoft-Windows-%s-Package-%d" processorArchitecture="amd64" publicKeyToken="31bf3856ad364e35" version="10.0.%d.%d" /></package></update>`,
			u.rev%10000, r.IntN(9999), []string{"LDR", "GDR"}[r.IntN(2)], components[k/40], k%40, 10240+r.IntN(9)*2000, r.IntN(9000))
	}
	return append(b, "</CbsPackageApplicabilityMetadata></Metadata></ApplicabilityRules>"...)
}

var components = strings.Fields("Kernel NetworkStack Shell-Core Printing-Spooler IE-HTML Graphics-DirectX Hyper-V-Worker Security-SPP Media-Foundation Win32k Storage-NTFS RemoteDesktop Crypto-Lib Defender-AM Fonts-TrueType Servicing-Stack")

// reboots are what updates of a handler need afterwards; a bundle leaves it to
// its parts.
var reboots = map[string]string{"OSInstaller": "AlwaysRequiresReboot", "CommandLineInstallation": "NeverReboots"}

// extended is the x/ fragment.
func (u *update) extended() []byte {
	const handlers = "http://schemas.microsoft.com/msus/2002/12/UpdateHandlers/"
	var b []byte
	switch u.kind {
	case catKind:
		return fmt.Appendf(b, `<ExtendedProperties DefaultPropertiesLanguage="en" Handler="%sCategory" MaxDownloadSize="0" MinDownloadSize="0" /><HandlerSpecificData type="cat:Category"><CategoryInformation CategoryType="%s" ProhibitsSubcategories="true" ProhibitsUpdates="false" DisplayOrder="2147483647" ExcludedByDefault="false" /></HandlerSpecificData>`, handlers, u.catType)
	case detectoid:
		return fmt.Appendf(b, `<ExtendedProperties DefaultPropertiesLanguage="en" MaxDownloadSize="0" MinDownloadSize="0" />`)
	case bundle:
		b = append(b, `<ExtendedProperties DefaultPropertiesLanguage="en"`...)
		if u.severity != "" {
			b = fmt.Appendf(b, ` MsrcSeverity="%s"`, u.severity)
		}
		b = append(b, ` IsBeta="false"><SupportUrl>https://support.microsoft.com/help/`...)
		b = append(b, u.kb+"</SupportUrl>"...)
		if u.bulletin != "" {
			b = fmt.Appendf(b, "<SecurityBulletinID>%s</SecurityBulletinID>", u.bulletin)
		}
		b = fmt.Appendf(b, "<KBArticleID>%s</KBArticleID>", u.kb)
		for _, c := range u.cves {
			b = fmt.Appendf(b, "<CveID>%s</CveID>", c)
		}
		return append(b, "</ExtendedProperties>"...)
	}
	uri, data := handlers+u.handler, ""
	switch u.handler {
	case "Cbs":
		data = `<HandlerSpecificData type="cbs:Cbs"><CbsData PackageIdentity="" /></HandlerSpecificData>`
	case "OSInstaller":
		uri = "http://schemas.microsoft.com/msus/2016/01/UpdateHandlers/OSInstaller"
		data = `<HandlerSpecificData type="OSInstallerMetadata"><OSInstallData InitialModule="UpdateAgent.dll" /></HandlerSpecificData>`
	case "WindowsInstaller":
		data = `<HandlerSpecificData type="msp:WindowsInstaller"><MspData CommandLine="DISABLESRCPROMPT=1 LOCALCACHESRCRES=0 NOLOCALCACHEROLLBACK=1" FullFilePatchCode="{` + u.id + `}" /></HandlerSpecificData>`
	case "CommandLineInstallation":
		data = `<HandlerSpecificData type="cmd:CommandLineInstallation"><InstallCommand Arguments="/quiet /norestart" Program="` + esc(u.files[0].name) + `" RebootByDefault="false" DefaultResult="Failed"><ReturnCode Reboot="true" Result="Succeeded" Code="3010" /></InstallCommand></HandlerSpecificData>`
	}
	total := int64(0)
	for _, f := range u.files {
		total += f.size
	}
	b = fmt.Appendf(b, `<ExtendedProperties DefaultPropertiesLanguage="en" Handler="%s" MaxDownloadSize="%d" MinDownloadSize="0"><InstallationBehavior RebootBehavior="%s" /><UninstallationBehavior RebootBehavior="CanRequestReboot" />`, uri, total, cmp.Or(reboots[u.handler], "CanRequestReboot"))
	if u.lang != "" {
		b = fmt.Appendf(b, "<Language>%s</Language>", u.lang)
	}
	b = append(b, "</ExtendedProperties><Files>"...)
	for _, f := range u.files {
		attr := "PatchingType"
		if f.patching == "Metadata" || f.patching == "ServicingStack" {
			attr = "PatchingTypePreferred"
		}
		b = fmt.Appendf(b, `<File Digest="%s" DigestAlgorithm="SHA1" FileName="%s" Size="%d" Modified="%s" %s="%s"><AdditionalDigest Algorithm="SHA256">%s</AdditionalDigest></File>`,
			f.id(), esc(f.name), f.size, stamp(f.modified), attr, f.patching, base64.StdEncoding.EncodeToString(f.sha256))
	}
	return append(append(b, "</Files>"...), data...)
}

// localized is the l/<language>/ fragment.
func (u *update) localized(lang string) []byte {
	title, desc := u.title, ""
	if lang != "en" && u.kind != leaf {
		title = map[string]string{"de": "Aktualisierung: ", "fr": "Mise à jour : ", "ja": "更新プログラム ", "zh-cn": "更新程序 "}[lang] + title
	}
	if u.kind == bundle {
		desc = "A security issue has been identified in a Microsoft software product that could affect your system. You can help protect your system by installing this update from Microsoft. For a complete listing of the issues that are included in this update, see the associated Microsoft Knowledge Base article. After you install this update, you may have to restart your system."
	}
	b := fmt.Appendf(nil, "<LocalizedProperties><Language>%s</Language><Title>%s</Title>", lang, esc(title))
	if desc != "" {
		b = fmt.Appendf(b, "<Description>%s</Description><UninstallNotes>This software update can be removed by selecting View installed updates in the Programs and Features Control Panel.</UninstallNotes><MoreInfoUrl>https://support.microsoft.com/help/%s</MoreInfoUrl><SupportUrl>https://support.microsoft.com/help/%s</SupportUrl>", desc, u.kb, u.kb)
	}
	return append(b, "</LocalizedProperties>"...)
}

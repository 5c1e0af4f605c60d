package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// newer is the version that is upgraded to.
const newer = "9.0.0"

// putInto builds the two packages and the players into the share.
func putInto(t *testing.T, share string) {
	t.Helper()
	player := exec.Command("go", "test", "-c", "-o", filepath.Join(share, "player"), ".")
	player.Env = append(os.Environ(), "CGO_ENABLED=0")
	for _, cmd := range []*exec.Cmd{
		player,
		exec.Command("go", "-C", "..", "run", "./packaging/deb", "--arch", "amd64", "--out", share),
		exec.Command("go", "-C", "..", "run", "./packaging/deb", "--arch", "amd64", "--out", share, "--version", newer),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
	list, err := filepath.Glob(filepath.Join(share, "wuamesh_0*.deb"))
	if err != nil || len(list) != 1 {
		t.Fatalf("built %v, %v", list, err)
	}
	if err := os.Rename(list[0], filepath.Join(share, "wuamesh.deb")); err != nil {
		t.Fatal(err)
	}
}

// TestBranchServer is the life of the package on a Debian with systemd, from
// apt install to purge.
func TestBranchServer(t *testing.T) {
	if testing.Short() {
		t.Skip("with -short; packaging/check runs it")
	}
	b := boot(t)
	putInto(t, b.share)
	b.sh("echo 127.0.0.1 localhost > /etc/hosts; ip link add lan0 type veth peer name lan1 && ip addr add 10.7.0.2/24 dev lan0 && ip link set lan0 up && ip link set lan1 up")
	b.play("microsoft")
	installed(b)
	reloaded(b)
	setUp(b)
	patched(b)
	upgraded(b)
	killed(b)
	removed(b)
	unlucky(b)
	b.want("wuamesh backup /root/backup", "is a whole backup")
	b.want("wuamesh token join", "wmj1.")
	imported(b)
	purged(b)
	restored(b)
}

const version0 = "dpkg-query -f '${Version}' -W wuamesh"

func installed(b *box) {
	out := b.want("apt-get install -y /mnt/wuamesh.deb", "Open this link once", "https://10.7.0.2/setup?secret=")
	if strings.Contains(out, "did not start") {
		b.t.Errorf("apt says %s", out)
	}
	b.want("systemctl is-active wuamesh.service wuamesh-https.socket wuamesh-http.socket", "active\nactive\nactive")
	b.want("systemctl is-enabled wuamesh.service wuamesh-https.socket wuamesh-http.socket", "enabled\nenabled\nenabled")
	b.want("ss -Hltn", ":443", ":80")
	b.want("getent passwd wuamesh", ":/var/lib/wuamesh:/usr/sbin/nologin")
	b.want("ps -o user= -C wuamesh", "wuamesh")
	b.want("stat -c '%U:%G %a' /var/lib/wuamesh /var/www/waptwua /etc/wuamesh/wuamesh.toml /usr/bin/wuamesh",
		"wuamesh:wuamesh 700\nwuamesh:wuamesh 755\nroot:wuamesh 640\nroot:root 755")
	level, err := strconv.ParseFloat(regexp.MustCompile(`level for wuamesh.service: ([0-9.]+)`).FindStringSubmatch(b.sh("systemd-analyze security --no-pager wuamesh.service"))[1], 64)
	if err != nil || level > 2.0 {
		b.t.Errorf("systemd-analyze security says %v, %v; want at most 2.0", level, err)
	}
	b.want("curl -sk https://localhost/healthz", `"ok":true`)
	b.want("curl -sI http://localhost/", "Location: https://localhost/")
	b.want("systemctl show -p NRestarts -p WatchdogUSec wuamesh", "NRestarts=0", "WatchdogUSec=1min")
	b.want("journalctl -u wuamesh WUAMESH_PART=appliance -o cat", "no admin yet", "/setup?secret=")
	b.want("wuamesh --version; wuamesh status", "up since")
	// Somebody logs in on the console; nobody else may read the link.
	b.want("echo exit | setsid script -qec 'login -f root' /dev/null", "wuamesh is not set up yet", "/setup?secret=")
	b.refuses("setpriv --reuid=nobody --clear-groups cat /run/wuamesh/motd", "Permission denied")
}

func reloaded(b *box) {
	b.sh("echo '" + string(world().RootPEM()) + "' >/etc/wuamesh/mirror.pem")
	b.sh("sed -i 's|^#upstream = .*|upstream = \"http://" + microsoftAddr + "\"|; s|^#roots = .*|roots = [\"/etc/wuamesh/mirror.pem\"]|; s|^#disk_floor = .*|disk_floor = \"1 MiB\"|' /etc/wuamesh/wuamesh.toml")
	pid := b.sh("systemctl show -p MainPID wuamesh")
	b.sh("systemctl reload wuamesh")
	b.want("journalctl -u wuamesh -o cat", `changed="upstream roots disk_floor"`)
	b.sh("cp -p /etc/wuamesh/wuamesh.toml /root/good.toml; echo 'intrenet = false' >> /etc/wuamesh/wuamesh.toml")
	b.refuses("systemctl reload wuamesh")
	b.want("journalctl -u wuamesh -o cat", `there is no key "intrenet"`, `Did you mean "internet"?`)
	b.want("systemctl is-active wuamesh", "active")
	b.sh("cp -p /root/good.toml /etc/wuamesh/wuamesh.toml")
	if now := b.sh("systemctl show -p MainPID wuamesh"); now != pid {
		b.t.Errorf("a reload started another process: %s, then %s", pid, now)
	}
}

const password = "correct horse battery"

func setUp(b *box) {
	link := regexp.MustCompile(`https://\S+`).FindString(b.sh("wuamesh setup-link"))
	if link == "" {
		b.t.Fatal("setup-link prints no link")
	}
	secret := link[strings.Index(link, "secret=")+len("secret="):]
	b.want("curl -sk '"+link+"'", "first admin", `name="password"`, `name="site"`)
	b.want("curl -sk https://localhost/setup/test -d secret="+secret+" -d node=rns-01 -d site=rennes -d asked-internet=1 -d internet=on",
		"What the test found", "http://"+microsoftAddr+" answers", "The folder /var/www/waptwua can be written", "The clock is right")
	b.sh("wuamesh doctor >/root/doctor; grep -q '✓ folder ' /root/doctor && grep -q '✓ pages and agents' /root/doctor && ! grep -q '✗' /root/doctor || { cat /root/doctor; exit 1; }")
	b.want("curl -sk -o /dev/null -w '%{http_code} %{redirect_url}' -c /root/jar https://localhost/setup -d secret="+secret+
		" -d name=maelle -d node=rns-01 -d site=rennes -d asked-internet=1 -d internet=on --data-urlencode 'password="+password+"' --data-urlencode 'again="+password+"'", "303 https://localhost/")
	b.want("curl -sk -b /root/jar https://localhost/overview", "maelle", "rns-01")
	b.refuses("wuamesh setup-link", "is set up already")
	b.refuses("test -e /run/wuamesh/motd")
}

// patched enrols a host and waits until it has installed what it may.
func patched(b *box) {
	token := b.sh("wuamesh token enroll --uses 50 --for 72h 2>/dev/null")
	b.sh("mkdir -p /root/host; printf '%s\n' '[global]' 'repo_url = https://10.7.0.2/wapt' '[waptwua]' 'enabled = True' 'default_allow = True' 'download_scheduling = 1d' 'install_scheduling = 10s'" +
		" '[wuamesh]' 'nodes = https://10.7.0.2' 'token = " + token + "' > /root/host/wapt-get.ini")
	end := b.play("host", "WUAMESH_HOST=/root/host")
	defer func() {
		if b.t.Failed() {
			b.t.Logf("the host: %s", end())
		}
	}()
	b.until("wuamesh hosts", "BRS-WKS-")
	b.until(`wuamesh status --json | tr -d ' \n'`, `"compliant":1,`)
	b.want("ls /var/www/waptwua", "wsusscn2.cab", ".cab")
	b.want("wuamesh hosts --json | tr -d ' \n'", `"missing":0`)
	end()
}

func upgraded(b *box) {
	before := b.sh("wuamesh hosts --json")
	crowd := b.play("crowd")
	b.until("journalctl -u wuamesh -n 1", "") // the crowd is there
	b.sh("sleep 1")
	b.sh("apt-get install -y /mnt/wuamesh_" + newer + "_amd64.deb")
	b.want(version0, newer)
	b.sh("sleep 2")
	said := crowd()
	m := regexp.MustCompile(`asked (\d+) failed (\d+)`).FindStringSubmatch(said)
	if m == nil || m[2] != "0" || len(m[1]) < 3 {
		b.t.Errorf("during the upgrade the crowd said\n%s", said)
	} else {
		b.t.Logf("during the upgrade %s requests, none failed", m[1])
	}
	b.want("wuamesh status", "wuamesh "+newer)
	if n := strings.Count(b.sh("journalctl -u wuamesh -o cat"), "node ready"); n != 2 {
		b.t.Errorf("the upgrade restarted the node %d times, want once", n-1)
	}
	b.sh("cmp /root/good.toml /etc/wuamesh/wuamesh.toml")
	counts := regexp.MustCompile(`(?s)"counts": {.*?}`)
	if after := b.sh("wuamesh hosts --json"); counts.FindString(after) != counts.FindString(before) || !strings.Contains(after, "BRS-WKS-") {
		b.t.Errorf("hosts before the upgrade\n%s\nafter it\n%s", before, after)
	}
	b.want("curl -sk -b /root/jar https://localhost/overview", "maelle") // still logged in
}

func killed(b *box) {
	pid := b.sh("systemctl show --value -p MainPID wuamesh")
	b.sh("kill -9 " + pid)
	b.want("curl -sk --retry 3 https://localhost/healthz", `"ok":true`) // it waits at the socket
	b.want("systemctl show -p NRestarts wuamesh", "NRestarts=1")
	b.want("wuamesh hosts", "BRS-WKS-")
	b.want(`wuamesh status --json | tr -d ' \n'`, `"compliant":1,`)
	b.want("curl -sk -b /root/jar https://localhost/overview", "maelle")
}

func removed(b *box) {
	b.sh("apt-get remove -y wuamesh")
	b.refuses("systemctl is-active wuamesh.service wuamesh-https.socket wuamesh-http.socket")
	b.refuses("ss -Hltn | grep -E ':(80|443|7946)\\b'")
	b.refuses("test -e /usr/bin/wuamesh")
	b.sh("test -s /var/lib/wuamesh/store/MANIFEST && test -s /var/www/waptwua/wsusscn2.cab && cmp /root/good.toml /etc/wuamesh/wuamesh.toml && id wuamesh")
	out := b.sh("apt-get install -y /mnt/wuamesh_" + newer + "_amd64.deb")
	if strings.Contains(out, "Open this link") {
		b.t.Errorf("the node was set up, and after it was installed again apt says\n%s", out)
	}
	b.want("wuamesh hosts", "BRS-WKS-")
	b.want("curl -sk -b /root/jar https://localhost/overview", "maelle")
}

// unlucky has a node that cannot start: the package stays whole and says
// where to look.
func unlucky(b *box) {
	b.sh("echo 'intrenet = false' >> /etc/wuamesh/wuamesh.toml")
	b.want("apt-get install -y --reinstall /mnt/wuamesh_"+newer+"_amd64.deb", "wuamesh did not start", `there is no key "intrenet"`, "journalctl -u wuamesh")
	b.want("dpkg-query -f '${Status}' -W wuamesh", "install ok installed")
	b.sh("cp -p /root/good.toml /etc/wuamesh/wuamesh.toml && systemctl restart wuamesh")
	b.want("wuamesh hosts", "BRS-WKS-")
	if errs := b.sh("journalctl -u wuamesh WUAMESH_PART=appliance -p err -o cat || true"); errs != "" && !strings.Contains(errs, "No entries") {
		b.t.Errorf("errors in the journal:\n%s", errs)
	}
}

func purged(b *box) {
	b.sh("apt-get purge -y wuamesh")
	b.refuses("ls -d /etc/wuamesh /var/lib/wuamesh /var/www/waptwua /run/wuamesh /usr/bin/wuamesh 2>/dev/null | grep .")
	b.refuses("ss -Hltn | grep -E ':(80|443|7946)\\b'")
	b.refuses("find /etc /var/lib/systemd -name '*wuamesh*' | grep .")
	b.refuses("systemctl list-units --all --no-legend 'wuamesh*' | grep -v not-found | grep .")
	b.want("dpkg-query -l wuamesh 2>&1 || true", "no packages found")
}

// imported takes a WAPT server over: the node's folder with one more file in
// it, and one that is not what its name says.
func imported(b *box) {
	b.sh("mkdir -p /root/wapt/repo /root/wapt/repowua && printf '[options]\nhttp_proxy = \ncleanup_kbs = False\nwapt_folder = /root/wapt/repo\n' > /root/wapt/waptserver.ini")
	b.sh("printf good > /root/wapt/repowua/windows10.0-kb1_$(printf good | sha1sum | cut -c1-40).cab; printf bad > /root/wapt/repowua/windows10.0-kb2_$(printf good | sha1sum | cut -c1-40).cab")
	b.refuses("wuamesh import-wapt --dry-run", "There is no /opt/wapt/conf/waptserver.ini")
	b.want("wuamesh import-wapt --ini /root/wapt/waptserver.ini 2>&1", "cleanup_kbs: set false", "1 file verified", "windows10.0-kb2_")
	b.sh("systemctl restart wuamesh")
	b.until("curl -s http://localhost/waptwua/windows10.0-kb1_$(printf good | sha1sum | cut -c1-40).cab", "good")
	b.want("grep ^cleanup_kbs /etc/wuamesh/wuamesh.toml", "cleanup_kbs = false")
}

// restored installs on the emptied machine and brings the backup back.
func restored(b *box) {
	b.sh("apt-get install -y /mnt/wuamesh.deb && systemctl stop wuamesh-https.socket wuamesh-http.socket wuamesh")
	b.want("wuamesh doctor || true", "No node runs on this machine")
	b.want("wuamesh restore --replace /root/backup", "Restored node", "before-")
	b.sh("systemctl start wuamesh-https.socket wuamesh-http.socket wuamesh")
	b.want("wuamesh hosts", "BRS-WKS-")
	b.refuses("wuamesh setup-link", "is set up already")
}

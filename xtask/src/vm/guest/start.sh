# Enabled and started; then a real encode, by the command line, with the packaged configuration.
# `command` is off in it and gets the media folder here. Short times of the watchdog and of a drain
# save the guest's time.
sed -i "/^\[types.command\]/a roots = { read = [\"$MEDIA\"], write = [\"$MEDIA\"] }" $SHIFTBOSS_CONFIG
sed -i '/^\[types.command\]/,/^\[/ s/^enabled = false/enabled = true/' $SHIFTBOSS_CONFIG
cat >/etc/default/shiftboss <<'ENV'
SHIFTBOSS_TYPES__COMMAND__GRACE__DRAIN=3s
SHIFTBOSS_TYPES__COMMAND__GRACE__TERM=3s
ENV
mkdir -p /etc/systemd/system/shiftboss.service.d
printf '[Service]\nWatchdogSec=10\n' >/etc/systemd/system/shiftboss.service.d/dog.conf
systemctl daemon-reload
check start systemctl enable --now -q shiftboss
check start.ready within 20 status_answers
check start.status holds 'unit StatusText | grep -q running'
check start.user is "$(stat -c %U /proc/$(main))" shiftboss
if [ "$SYSTEMD" -ge 254 ]; then
    check start.leaf holds 'grep -q /shiftboss.service/supervisor$ /proc/$(main)/cgroup'
fi
check start.database within 10 test -s $DB
systemd-analyze security --no-pager shiftboss >"$OUT/security.txt"
note "$(tail -n 1 "$OUT/security.txt")"
shiftboss doctor --json >"$OUT/doctor.json"

ffmpeg -loglevel error -f lavfi -i testsrc2=size=320x180:rate=25:duration=2 \
    -f lavfi -i sine=frequency=440:duration=2 -c:v libx264 -preset ultrafast -c:a aac \
    $MEDIA/film.mp4
chown shiftboss: $MEDIA/film.mp4
check encode shiftboss encode $MEDIA/film.mp4 --out $MEDIA/renditions --renditions 480p --wait
film=$(ls $MEDIA/renditions/*.mp4)
check encode.frames is "$(ffprobe -v error -count_frames -select_streams v -of csv=p=0 \
    -show_entries stream=nb_read_frames "$film")" 50
check encode.owner is "$(stat -c %U "$film")" shiftboss

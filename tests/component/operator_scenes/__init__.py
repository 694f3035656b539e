"""The eleven scenes that operators met, F1 to F11, each replayed as they met it.

The first operators of the product found these problems: on call, as newcomers, as reviewers of its
security, as the team that runs eighty sets. Each line in quotes is what one of them said. Below it
is the test that proves the opposite today: one of this package if the name begins with `test_f`,
otherwise one in the file before `::`, below `tests/`. `test_table.py` finds each of them.

F1. A VM that Azure hits while it is in rotation leaves no verdict anywhere.

"nothing at NotBefore, nothing at start, nothing when the event was gone": log, `status`, page,
metrics, webhook
    test_f1_a_vm_that_is_hit_in_rotation_has_a_verdict_everywhere
    simulation/faults/test_reports.py::test_hit_in_rotation_because_of_the_floor
    ui/test_page.py::test_a_vm_that_is_hit_in_rotation
"the same with the leader among the victims"
    test_f1_the_leader_itself_is_hit
"alert, Grafana, Azure Monitor and history all miss it"
    deploy/monitoring/test_rules.py::test_every_alert_has_been_seen_to_fire_and_to_stay_silent
    deploy/monitoring/test_dashboard.py::test_every_metric_is_watched
    deploy/test_azure_monitor.py::test_queries_ask_for_words_that_there_are
"a late drain shows like a success"
    unit/status/test_problems.py::test_missed_events_of_the_last_day
    unit/observability/test_transition_log.py::test_a_verdict_is_logged_and_counted_once
    simulation/faults/test_reports.py::test_started_without_notice
"no line for announced, started, cancelled, gone"
    test_f6_a_drain_is_logged_from_its_announcement_on
    simulation/faults/test_reports.py::test_cancelled

F2. It says "out of rotation" of a VM that is in the pool and cannot be taken out.

"readyz, healthz, the title and systemd say: out of rotation"
    test_f2_a_vm_that_cannot_be_removed_is_not_called_out_of_rotation
    component/test_service.py::test_systemd_hears_of_every_stage
"`roll` says: out and empty, and nothing was counted"
    component/test_manual_drain.py::test_a_roll_reports_what_it_knows_of_the_health
"the alert is blind: each good read resets the failures"
    test_f2_denied_writes_add_up_beside_good_reads
    unit/observability/test_metrics.py::test_a_good_read_does_not_hide_that_writes_fail
    deploy/monitoring/test_rules.py::test_promtool_runs_the_unit_tests_of_the_rules

F3. azuredeploy.json can damage VMs, and collides on the second subscription.

"it writes each VM without its tags"
    deploy/test_template.py::test_no_vm_is_written
    deploy/test_template.py::test_what_vms_have_stays
"VMs lose their system-assigned identity by default"
    deploy/test_template.py::test_nothing_can_change_tags_or_identities
    deploy/test_template.py::test_the_identity_is_assigned_by_a_command_that_adds_it
"role names are fixed: a second subscription fails"
    deploy/test_template.py::test_two_subscriptions_get_different_roles
"no security contact, no supported versions, no list of destinations"
    test_f3_a_reviewer_finds_contact_versions_and_destinations
"no bill of materials, no signature, no tag, no changelog"
    deploy/test_release.py::test_a_whole_release
    deploy/test_release.py::test_a_tree_that_can_be_released

F4. `status` does not answer "what is going on?".

"no set, VMs, pools, event, countdown, agents, versions; the phases differ between commands"
    test_f4_status_shows_the_set_its_agents_and_what_they_do
    unit/cli/test_overview_tables.py::test_every_vm_has_its_agent_pools_phase_and_event
"a dead agent is invisible"
    unit/status/test_problems.py::test_agents_that_do_not_take_part
    unit/core/test_agent_presence.py::test_an_agent_runs_until_it_misses_its_period
    ui/test_page.py::test_an_agent_that_does_not_run
"`plan` does not say why not"
    test_f4_plan_says_why_nothing_is_done
"not from a workstation"
    test_f4_a_workstation_shows_the_set
"in a storage outage both commands fail as a whole"
    unit/cli/test_cli.py::test_without_storage_the_agent_on_the_vm_answers
"three shapes of JSON, without a version"
    test_f4_status_is_one_versioned_object

F5. No lever for the last minutes.

"taking it out manually obeys the same floor, and `--wait` waits for ever"
    test_f5_a_wait_ends_and_the_drain_is_forced
    component/test_manual_drain.py::test_a_forced_drain_goes_below_the_floor
"the pager leaves two minutes for a hold that is known for fifteen"
    deploy/monitoring/test_rules.py::test_promtool_runs_the_unit_tests_of_the_rules
"to lower the floor: edit a file on every VM and restart"
    test_f5_the_floor_is_lowered_for_the_whole_set
    component/test_reload.py::test_a_reload_keeps_the_lease_and_releases_a_hold
"no pause, no hand-over, no decision about one event"
    test_f5_a_pause_is_shown_wherever_somebody_looks
    component/test_controls.py::test_a_paused_set_waits_and_resumes
    component/test_controls.py::test_a_leader_hands_over
    component/test_controls.py::test_a_decision_holds_and_allows_an_acknowledgement
"the hold says what the rule is, not what follows"
    test_f5_a_hold_names_what_follows_and_every_lever
"nothing says why the other VMs stop at out"
    test_f5_a_vm_that_is_out_says_what_its_event_waits_for

F6. The log reads wrongly at 2 a.m.

"seven refused removals, and the last line looks like success"
    test_f6_the_last_line_of_a_failing_removal_is_its_failure
"a search by VM misses every hold"
    unit/observability/test_transition_log.py::test_a_hold_is_logged_when_it_begins
    unit/observability/test_transition_log.py::test_a_hold_of_several_vms_is_found_by_each
"names of classes and functions"
    unit/azure/test_error_mapping.py::test_every_error_has_an_outcome
    unit/azure/test_error_mapping.py::test_every_request_has_a_name_for_messages
"`out` has no lead time"
    test_f6_a_drain_is_logged_from_its_announcement_on
"a dry run repeats one line, and ends without a verdict"
    simulation/faults/test_reports.py::test_a_dry_run
    simulation/faults/test_reports.py::test_a_dry_run_that_the_floor_holds

F7. Nothing is packaged.

"no .deb, no .rpm"
    deploy/test_packages.py::test_a_deb_from_installation_to_purge
    deploy/test_packages.py::test_an_rpm_from_installation_to_removal
"no release"
    deploy/test_release.py::test_a_whole_release
"no Ansible"
    deploy/test_ansible.py::test_the_role_installs_and_removes
"no VM extension"
    deploy/test_template.py::test_the_command_of_the_extension
"no docs site"
    docs/test_site.py::test_every_page_is_reachable
"the last agent of a set can be removed while a VM is out"
    deploy/test_install.py::test_the_agent_stays_while_a_vm_is_out
    deploy/test_packages.py::test_a_deb_stays_while_a_vm_is_out

F8. Nothing can be rehearsed without a reboot.

"to test a channel, restart a VM"
    component/test_channel_trial.py::test_each_channel_gets_one_message
"no test drain that prints the time of each step"
    test_f8_a_test_drain_times_every_step
    component/test_drain_rehearsal.py::test_a_test_drain_counts_as_one_everywhere
    test_f8_a_hold_of_a_test_is_marked_as_one
"no injected event"
    component/test_event_rehearsal.py::test_a_test_event_goes_through_the_whole_chain
"a manual drain is counted as a failure"
    unit/observability/test_transition_log.py::test_a_manual_drain_is_counted_as_one_unless_there_is_an_event
"a drain in a dry run is accepted, and stands when the dry run ends"
    test_f8_a_drain_in_a_dry_run_is_refused

F9. The page: good bones, wrong on five VMs of six.

"standby pages show nothing of the others, and no way to the leader"
    ui/test_page.py::test_the_page_of_a_standby
"past events push the VMs down; requests take half of a phone"
    test_f9_the_page_begins_with_problems_and_folds_what_is_for_developers
"nothing is ever red"
    ui/test_page.py::test_a_vm_that_is_hit_in_rotation
    ui/test_page.py::test_a_write_that_azure_denies
"a step without a time is not explained"
    ui/test_page.py::test_a_step_that_nobody_here_saw_says_so
"no local time"
    ui/test_page.py::test_times_are_local_until_utc_is_asked_for
"no link to the runbook, no version, no resource group"
    ui/test_page.py::test_an_agent_that_does_not_run
    ui/test_page.py::test_the_page_of_a_standby
"axe-core: landmark-unique; stops of the Tab key that do not scroll"
    ui/test_page.py::test_keyboard_and_screen_reader

F10. The doctor mends with one-off roles.

"n runs, n custom roles, none of those that are shipped"
    test_f10_the_doctor_assigns_the_shipped_role_once
    unit/doctor/test_obstacles.py::test_a_role_is_assigned_in_one_step
    deploy/test_roles.py::test_the_doctor_names_a_role_that_contains_the_action

F11. Smaller, each seen.

"`stauts` lists 14 choices"; "`drain web-1 web-2` is refused"
    unit/cli/test_cli.py::test_wrong_arguments
    test_f11_several_vms_are_drained_by_one_command
"`lb-drain` alone has no help"; "`help` and `version` are no commands"
    unit/cli/test_cli.py::test_without_arguments_the_help_is_printed
    unit/cli/test_cli.py::test_help_as_a_command
    unit/cli/test_cli.py::test_version_as_a_command
"is not TOML: cut in the column"
    unit/config/test_hints.py::test_a_syntax_error_is_shown_with_its_place
"optional commands read as required"; "VM: these"; "145 columns"
    unit/cli/test_cli.py::test_optional_commands_are_optional_in_the_usage
    unit/cli/test_cli.py::test_help_shows_an_example_and_the_exit_codes
    unit/cli/test_cli.py::test_help_fits_the_terminal
"a second drain of a VM: one request, and the reason is gone"
    test_f11_a_second_drain_of_a_vm_keeps_the_reason_of_the_first
"`maintenance start` prints the end of an earlier run"
    component/test_manual_drain.py::test_the_end_of_an_earlier_drain_is_no_news
"installed in place of itself"
    deploy/test_install.py::test_only_the_configuration_changes
"80 sets named web are one"; "no link"; "header and text say the same"
    unit/notices/test_origin.py::test_a_headline_names_the_set_and_its_resource_group
    unit/notices/test_origin.py::test_a_webhook_has_the_names_and_the_link
"started, of a VM in rotation, is info"
    test_f1_a_vm_that_is_hit_in_rotation_has_a_verdict_everywhere
    unit/notices/test_set_notices.py::test_a_start_in_rotation_is_a_warning
"runbook_url is relative"
    deploy/monitoring/test_rules.py::test_the_address_of_the_runbook_can_be_set
"no version in the metrics, and a fifth of the series are times of creation"
    test_f11_metrics_have_a_version_and_no_times_of_creation
"ten empty rows for each channel"
    unit/cli/test_cli.py::test_check_config_shows_no_empty_key_of_a_channel
"`plan` off a terminal prints a line of JSON"
    test_f11_plan_without_a_terminal_prints_text
"`restore` of a VM that an event holds out says nothing of that"
    test_f11_restore_names_the_event_that_keeps_a_vm_out
"the demo: no line says what one is looking at, none where to go next"
    simulator/test_demo_screen.py::test_a_pipe_gets_a_line_per_headline
    simulator/test_demo_screen.py::test_the_summary_compares_with_the_twin
    simulator/test_demo_screen.py::test_the_summary_without_a_controller_has_a_hint

Not offered, so that nothing proves it: a completion script for PowerShell, Terraform and Bicep
modules, an Azure Policy, a Windows service, an image.
"""

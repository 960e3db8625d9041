<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Sync\Moment;
use PMP\Analytics\Sync\Profile;
use WP_REST_Response;

/**
 * The mesh states what it knows of an account, and the account's own changes reach the mesh.
 */
final class UsersRouteTest extends SiteTestCase
{
    use SignedCalls;

    protected const RECORDS_VALID_PAYLOADS = true;

    private int $ada;

    protected function setUp(): void
    {
        parent::setUp();
        $this->share_secret();
        $this->ada = $this->customer();
        $this->drain();
        $this->clock->move(60);
    }

    public function test_derived_values_are_user_meta_and_nothing_is_sent_back(): void
    {
        self::assertSame([200, true], $this->call(['user_type' => 'customer', 'lifetime_value' => '199.00']));

        self::assertSame('customer', $this->meta('user_type'));
        self::assertSame('199.00', $this->meta('lifetime_value'));
        self::assertSame([], $this->outbox());
    }

    public function test_an_older_call_and_a_repeated_one_change_nothing(): void
    {
        $this->call(['user_type' => 'customer'], ['version' => 20]);
        $this->call(['user_type' => 'lead'], ['version' => 10]);
        $this->call(['user_type' => 'customer'], ['version' => 20]);
        self::assertSame('customer', $this->meta('user_type'));

        $this->call(['user_type' => 'subscriber'], ['version' => 30]);
        self::assertSame('subscriber', $this->meta('user_type'));
        self::assertSame([], $this->outbox());
    }

    public function test_another_plugin_does_not_change_a_derived_value_and_one_conflict_is_reported(): void
    {
        $this->call(['user_type' => 'customer']);

        self::assertFalse(update_user_meta($this->ada, 'pmp_user_type', 'vip'));
        self::assertFalse(update_user_meta($this->ada, 'pmp_user_type', 'vip'));
        self::assertFalse(delete_user_meta($this->ada, 'pmp_user_type'));
        update_user_meta($this->ada, 'pmp_user_type', 'customer');
        update_user_meta($this->ada, 'vip', 'yes');

        self::assertSame('customer', $this->meta('user_type'));
        self::assertSame('yes', get_user_meta($this->ada, 'vip', true));
        $conflicts = array_column($this->outbox(Kind::Conflict), 'payload');
        self::assertSame(['vip', null], array_map(static fn (array $each): ?string => $each['site_value'] ?? null, $conflicts));
        self::assertSame(['user_type', 'customer', 'mesh'], self::facts_of($conflicts[0]));
        self::assertSame((string) $this->ada, $this->outbox(Kind::Conflict)[0]['target']);
    }

    public function test_a_profile_that_another_system_wrote_is_reported_as_it_is_here(): void
    {
        $later = Moment::of($this->clock->now());
        $written = static fn (string $value): array => ['value' => $value, 'written_at' => $later];
        $this->call([], ['profile' => ['first_name' => $written('Augusta'), 'email' => $written('Ada@example.org')]]);

        [$conflict] = $this->outbox(Kind::Conflict);
        self::assertSame(['first_name', 'Augusta', 'wordpress'], self::facts_of($conflict['payload']));
        [$reported] = $this->outbox(Kind::Profile);
        self::assertSame(['Ada', 'Lovelace'], [$reported['payload']['first_name'], $reported['payload']['last_name']]);
        self::assertGreaterThan($later / 1_000_000, strtotime($reported['payload']['updated_at']) + 1);
        self::assertSame('Ada', get_userdata($this->ada)->first_name);
    }

    public function test_a_profile_from_before_the_last_report_is_no_conflict(): void
    {
        $before = Moment::of($this->clock->now()) - 120_000_000;
        $this->call([], ['profile' => ['first_name' => ['value' => 'Adah', 'written_at' => $before]]]);

        self::assertSame([], $this->outbox(Kind::Conflict));
        self::assertCount(1, $this->outbox(Kind::Profile), 'the report may have been lost');
    }

    public function test_a_changed_profile_is_reported_once(): void
    {
        update_user_meta($this->ada, 'first_name', 'Augusta');
        update_user_meta($this->ada, 'last_name', '');
        update_user_meta($this->ada, 'nickname', 'Countess');
        $this->end_of_request();
        $this->end_of_request();

        [$reported] = $this->outbox();
        self::assertSame(['profile', (string) $this->ada], [$reported['kind'], $reported['target']]);
        self::assertSame(['Augusta', ''], [$reported['payload']['first_name'], $reported['payload']['last_name']]);
        self::assertSame('ada@example.org', $reported['payload']['email']);
    }

    public function test_an_account_that_was_never_reported_is_registered_with_its_profile(): void
    {
        delete_user_meta($this->ada, 'pmp_synced');
        update_user_meta($this->ada, 'first_name', 'Augusta');
        $this->end_of_request();

        [$registered, $reported] = $this->outbox();
        self::assertSame(['registration', 'profile'], [$registered['kind'], $reported['kind']]);
        self::assertSame([(string) $this->ada, 'Augusta'], [$registered['payload']['wordpress_id'], $registered['payload']['first_name']]);
        self::assertSame($reported['payload']['updated_at'], $registered['payload']['timestamp']);
    }

    public function test_a_profile_that_the_mesh_lacks_is_reported(): void
    {
        $this->call([], ['profile' => []]);

        self::assertSame(['Ada'], array_column(array_column($this->outbox(Kind::Profile), 'payload'), 'first_name'));
        self::assertSame([], $this->outbox(Kind::Conflict));
    }

    public function test_a_choice_of_the_site_is_reported_and_counts_as_the_newest(): void
    {
        $at = Moment::of($this->clock->now()) - 1_000_000;
        $this->call([], ['consent' => ['marketing_emails' => ['granted' => true, 'decided_at' => $at]]]);
        self::assertSame('granted', $this->meta('marketing_emails'));

        self::assertTrue((bool) update_user_meta($this->ada, 'pmp_marketing_emails', 'denied'));
        self::assertFalse(update_user_meta($this->ada, 'pmp_marketing_emails', 'perhaps'));
        self::assertFalse(delete_user_meta($this->ada, 'pmp_marketing_emails'));

        self::assertSame('denied', $this->meta('marketing_emails'));
        [$reported] = $this->outbox();
        self::assertSame(['consent', (string) $this->ada, false], [
            $reported['kind'],
            $reported['target'],
            $reported['payload']['marketing_emails'],
        ]);
        // The mesh states the one before until the report arrives.
        $this->call([], ['consent' => ['marketing_emails' => ['granted' => true, 'decided_at' => $at]]]);
        self::assertSame('denied', $this->meta('marketing_emails'));
        self::assertSame([], $this->outbox(Kind::Conflict));
    }

    public function test_a_first_choice_of_the_site_is_one_value(): void
    {
        add_user_meta($this->ada, 'pmp_third_party_sharing', 'granted');

        self::assertSame(['granted'], get_user_meta($this->ada, 'pmp_third_party_sharing'));
        self::assertSame([true], array_column(array_column($this->outbox(Kind::Consent), 'payload'), 'third_party_sharing'));
    }

    public function test_a_newer_choice_of_the_mesh_is_taken_and_not_reported(): void
    {
        $at = Moment::of($this->clock->now());
        $this->call([], ['consent' => ['marketing_emails' => ['granted' => true, 'decided_at' => $at]]]);
        $this->call([], ['consent' => ['marketing_emails' => ['granted' => false, 'decided_at' => $at + 1]]]);

        self::assertSame('denied', $this->meta('marketing_emails'));
        self::assertSame([], $this->outbox());
    }

    public function test_who_is_no_customer_has_no_such_account(): void
    {
        $staff = $this->customer('boss', 'shop_manager');

        self::assertSame(410, $this->send(['wordpress_id' => 999])->get_status());
        self::assertSame(410, $this->send(['wordpress_id' => $staff])->get_status());
        self::assertSame('', get_user_meta($staff, 'pmp_user_type', true));
    }

    public function test_what_is_no_such_call_is_refused(): void
    {
        $wrong = [['version' => '1'], ['wordpress_id' => 0], ['derived' => 'x'], ['profile' => null], ['consent' => 1]];
        foreach ($wrong as $changes) {
            self::assertSame(400, $this->send($changes)->get_status());
        }
        self::assertSame(400, $this->signed_call('/pmp/v1/users', 'user.renamed', [])->get_status());
        self::assertSame(401, $this->signed_call('/pmp/v1/users', 'site.test', [], ['signed-id' => 'x'])->get_status());
        self::assertSame(200, $this->signed_call('/pmp/v1/users', 'site.test', [])->get_status());
    }

    public function test_what_is_known_of_a_person_is_exported_and_erased(): void
    {
        $this->call(['user_type' => 'customer'], ['consent' => ['marketing_emails' => ['granted' => true, 'decided_at' => 1]]]);
        $exporter = apply_filters('wp_privacy_personal_data_exporters', [])['pmp-analytics']['callback'];
        $exported = html_entity_decode((string) wp_json_encode($exporter('ada@example.org')));
        self::assertStringContainsString('customer', $exported);
        self::assertStringContainsString('granted', $exported);

        $erased = $this->signed_call('/pmp/v1/users', 'user.erased', ['wordpress_ids' => [$this->ada, 'x', null]]);

        self::assertSame(200, $erased->get_status());
        self::assertSame([], preg_grep('/^pmp_/', array_keys(get_user_meta($this->ada))));
        self::assertSame([], $this->outbox());
    }

    public function test_wordpress_erases_it_as_well(): void
    {
        $this->call(['user_type' => 'customer']);
        $eraser = apply_filters('wp_privacy_personal_data_erasers', [])['pmp-analytics']['callback'];

        self::assertTrue($eraser('ada@example.org')['items_removed']);
        self::assertSame('', $this->meta('user_type'));
    }

    /**
     * @param array<string, string> $derived
     * @param array<string, mixed>  $changes
     * @return array{int, bool} Status and success.
     */
    private function call(array $derived, array $changes = []): array
    {
        $answer = $this->send(['derived' => $derived] + $changes);
        return [$answer->get_status(), $answer->get_data()['success']];
    }

    /**
     * @param array<string, mixed> $changes
     */
    private function send(array $changes): WP_REST_Response
    {
        $same = array_map(
            static fn (string $value): array => ['value' => $value, 'written_at' => 1],
            Profile::of(get_userdata($this->ada)),
        );
        $data = $changes + ['wordpress_id' => $this->ada, 'version' => 1, 'derived' => [], 'profile' => $same, 'consent' => []];
        return $this->signed_call('/pmp/v1/users', 'user.changed', $data);
    }

    private function meta(string $field): string
    {
        return (string) get_user_meta($this->ada, "pmp_{$field}", true);
    }

    /**
     * @param array<string, mixed> $conflict
     * @return array{string, string, string} The field, the mesh's value and whose is kept.
     */
    private static function facts_of(array $conflict): array
    {
        return [$conflict['field'], $conflict['mesh_value'], $conflict['kept']];
    }
}

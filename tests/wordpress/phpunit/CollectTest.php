<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Queue\Kind;
use WP_REST_Request;
use WP_REST_Response;

/**
 * What browsers report to the shop's own address.
 */
final class CollectTest extends SiteTestCase
{
    protected const RECORDS_VALID_PAYLOADS = true;

    private const EVENT = [
        'id' => 'b-1',
        'timestamp' => '2026-11-22T10:15:29.500Z',
        'event_type' => 'page_view',
        'session_id' => 's-9f8e7d6c',
        'page_url' => 'https://shop.example/pricing',
        'page_title' => 'Pricing',
    ];

    public function test_a_beacon_is_kept_and_answered_at_once(): void
    {
        $response = $this->post(['events' => [self::EVENT]]);

        self::assertSame(202, $response->get_status());
        $verdict = ['success' => true, 'event_id' => 'b-1', 'violations' => []];
        self::assertSame(['success' => true, 'accepted' => 1, 'rejected' => 0, 'results' => [$verdict]], $response->get_data());
        self::assertSame('b-1', $this->outbox()[0]['id']);
        self::assertSame([], $this->mesh->calls);
    }

    public function test_both_addresses_take_events(): void
    {
        self::assertSame(202, $this->post(self::EVENT, [], '/pmp/v1/notes')->get_status());
        self::assertSame(202, $this->post([['id' => 'b-2'] + self::EVENT], [], '/pmp/v1/collect')->get_status());
        self::assertSame(['b-1', 'b-2'], array_column($this->outbox(), 'id'));
    }

    public function test_the_request_says_where_it_comes_from_and_the_browser_does_not(): void
    {
        $claims = ['ip_address' => '198.51.100.1', 'user_agent' => 'curl', 'user_id' => '1', 'platform' => 'admin', 'source' => 'x'];
        $this->post($claims + self::EVENT);

        $event = $this->outbox()[0]['payload'];
        self::assertSame('203.0.113.77', $event['context']['ip_address']);
        self::assertStringContainsString('Firefox', $event['context']['user_agent']);
        self::assertArrayNotHasKey('user_id', $event['context']);
        self::assertSame([null, '', ''], [$event['user_id'], $event['ip_address'], $event['user_agent']]);
        self::assertSame('tracker', $event['source']);
        self::assertArrayNotHasKey('platform', $event);
    }

    public function test_a_browser_that_forbids_sharing_is_heard(): void
    {
        $this->post(self::EVENT);
        $_SERVER['HTTP_SEC_GPC'] = '1';
        $this->post(['id' => 'b-2'] + self::EVENT);
        unset($_SERVER['HTTP_SEC_GPC']);

        [$silent, $refusing] = array_column($this->outbox(), 'payload');
        self::assertFalse($silent['context']['global_privacy_control']);
        self::assertTrue($refusing['context']['global_privacy_control']);
    }

    public function test_the_ids_of_other_systems_in_the_cookies_come_with_the_event_and_only_with_consent(): void
    {
        $this->post(self::EVENT);
        $this->start_session();
        $this->post(['id' => 'b-2'] + self::EVENT);
        add_filter('pmp_analytics_has_consent', '__return_false');
        $this->post(['id' => 'b-3'] + self::EVENT);
        remove_filter('pmp_analytics_has_consent', '__return_false');

        $contexts = array_column(array_column($this->outbox(), 'payload'), 'context');
        $sent = array_map(static fn (array $context): array => array_intersect_key($context, self::TAGS), $contexts);
        self::assertSame([[], self::TAGS, []], $sent);
    }

    public function test_a_choice_about_sharing_is_reported_when_it_has_changed(): void
    {
        $this->start_session();
        $cookies = [];
        foreach (['', 'allow', 'allow', 'deny', 'odd'] as $number => $choice) {
            $_COOKIE['wp_consent_marketing'] = $choice;
            $cookies[] = $cookie = $this->post(['id' => "b-{$number}"] + self::EVENT)->get_headers()['Set-Cookie'] ?? '';
            if (preg_match('/^pmp_sharing=([^;]+)/', $cookie, $found) === 1) {
                $_COOKIE['pmp_sharing'] = $found[1];
            }
        }

        $reported = $this->outbox(Kind::Consent);
        self::assertSame([true, false], array_column(array_column($reported, 'payload'), 'third_party_sharing'));
        self::assertSame(['session:s-9f8e7d6c', 'session:s-9f8e7d6c'], array_column($reported, 'target'));
        self::assertSame([false, true, false, true, false], array_map(static fn (string $cookie): bool => $cookie !== '', $cookies));
    }

    public function test_without_a_session_there_is_nobody_whose_choice_could_be_reported(): void
    {
        $_COOKIE['wp_consent_marketing'] = 'allow';
        $this->post(self::EVENT);

        self::assertSame([], $this->outbox(Kind::Consent));
    }

    public function test_a_login_counts_only_when_a_page_of_the_shop_asks(): void
    {
        $user = $this->customer();
        $this->drain();
        $_COOKIE[LOGGED_IN_COOKIE] = wp_generate_auth_cookie($user, time() + 3600, 'logged_in');

        $this->post(self::EVENT);
        $this->post(['id' => 'b-2'] + self::EVENT, ['origin' => 'https://shop.example']);
        $this->post(['id' => 'b-3'] + self::EVENT, ['sec-fetch-site' => 'same-origin']);
        $this->post(['id' => 'b-4'] + self::EVENT, ['sec-fetch-site' => 'cross-site']);

        $users = array_map(static fn (array $message): ?string => $message['payload']['context']['user_id'] ?? null, $this->outbox());
        self::assertSame([null, (string) $user, (string) $user, null], $users);
    }

    public function test_a_forged_login_is_nobody(): void
    {
        $_COOKIE[LOGGED_IN_COOKIE] = 'admin|9999999999|token|0000';

        $this->post(self::EVENT, ['origin' => 'https://shop.example']);

        self::assertArrayNotHasKey('user_id', $this->outbox()[0]['payload']['context']);
    }

    public function test_another_sites_pages_are_not_heard(): void
    {
        $response = $this->post(self::EVENT, ['origin' => 'https://evil.example']);

        self::assertSame(403, $response->get_status());
        self::assertSame([], $this->outbox());
    }

    public function test_an_address_that_a_visitor_typed_is_no_evidence(): void
    {
        $user = $this->customer();
        $this->drain();
        $this->post(['event_type' => 'lead_capture', 'email' => 'ada@example.org'] + self::EVENT);
        $_COOKIE[LOGGED_IN_COOKIE] = wp_generate_auth_cookie($user, time() + 3600, 'logged_in');
        $lead = ['id' => 'b-2', 'event_type' => 'lead_capture', 'email' => 'eve@example.org'] + self::EVENT;
        $this->post($lead, ['origin' => 'https://shop.example']);

        [$typed, $known] = $this->outbox();
        // A context makes it a browser's word, which the mesh takes for no evidence.
        self::assertSame(['ada@example.org', false], [$typed['payload']['email'], isset($typed['payload']['context']['user_id'])]);
        self::assertSame(['eve@example.org', (string) $user], [$known['payload']['email'], $known['payload']['context']['user_id']]);
    }

    public function test_an_event_that_is_repeated_after_a_login_from_another_network_is_the_same_event(): void
    {
        $this->post(self::EVENT);
        $first = $this->outbox()[0]['payload'];
        $user = $this->customer();
        $this->drain();
        $_COOKIE[LOGGED_IN_COOKIE] = wp_generate_auth_cookie($user, time() + 3600, 'logged_in');
        $_COOKIE['pmp_landing'] = '{"source":"newsletter"}';
        $_SERVER['REMOTE_ADDR'] = '198.51.100.9';
        $_SERVER['HTTP_USER_AGENT'] = 'Mozilla/5.0 (X11; Linux x86_64; rv:129.0) Gecko/20100101 Firefox/129.0';
        $this->post(self::EVENT, ['origin' => 'https://shop.example']);
        $_SERVER['REMOTE_ADDR'] = '203.0.113.77';
        $_SERVER['HTTP_USER_AGENT'] = 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0';

        $again = $this->outbox()[0]['payload'];
        self::assertSame((string) $user, $again['context']['user_id']);
        self::assertNotEquals($first['context'], $again['context']);
        unset($first['context'], $again['context']);
        self::assertSame($first, $again);
    }

    public function test_what_staff_does_is_taken_and_forgotten(): void
    {
        $staff = $this->customer('manager', 'shop_manager');
        $_COOKIE[LOGGED_IN_COOKIE] = wp_generate_auth_cookie($staff, time() + 3600, 'logged_in');

        $response = $this->post(self::EVENT, ['origin' => 'https://shop.example']);

        self::assertSame(202, $response->get_status());
        self::assertTrue($response->get_data()['success']);
        self::assertSame([], $this->outbox());
    }

    public function test_each_event_has_its_own_verdict(): void
    {
        $response = $this->post(['events' => [
            self::EVENT,
            ['id' => 'no-type', 'timestamp' => '2026-11-22T10:15:29Z'],
            ['id' => 'no-time', 'event_type' => 'click'],
            ['id' => 'odd id!', 'event_type' => 'click', 'timestamp' => '2026-11-22T10:15:29Z'],
            'text',
            ['event_type' => 'click', 'timestamp' => '2026-11-22T10:15:29Z'],
        ]]);

        $results = $response->get_data()['results'];
        self::assertSame([true, false, false, false, false, true], array_column($results, 'success'));
        $fields = array_map(static fn (array $result): string => $result['violations'][0]['field'] ?? '', $results);
        self::assertSame(['', 'event_type', 'timestamp', 'id', 'event_type', ''], $fields);
        self::assertSame($results[5]['event_id'], $this->outbox()[1]['id']);
    }

    /**
     * @return array<string, array{string, int}>
     */
    public static function bodies(): array
    {
        return [
            'nothing' => ['', 400],
            'no JSON' => ['<xml/>', 400],
            'no events' => ['{"events": []}', 400],
            'events that are none' => ['{"events": {"a": 1}}', 400],
            'a number' => ['7', 400],
            'too deep' => [str_repeat('{"a":', 40) . '1' . str_repeat('}', 40), 400],
            'too many' => [(string) json_encode(['events' => array_fill(0, 51, self::EVENT)]), 400],
            'too large' => ['{"events": [{"metadata": "' . str_repeat('x', 70_000) . '"}]}', 413],
        ];
    }

    /**
     * @dataProvider bodies
     */
    public function test_a_body_out_of_bounds_is_refused(string $body, int $status): void
    {
        $response = $this->send($body);

        self::assertSame($status, $response->get_status());
        self::assertIsInt($response->get_data()['code']);
        self::assertSame([], $this->outbox());
    }

    public function test_a_clock_that_is_ahead_is_put_right(): void
    {
        $this->post(['timestamp' => '2031-01-01T00:00:00Z'] + self::EVENT);

        self::assertSame('2026-11-22T10:15:30Z', $this->outbox()[0]['payload']['timestamp']);
    }

    public function test_one_address_can_not_fill_the_outbox(): void
    {
        for ($request = 1; $request <= 300; ++$request) {
            $this->post(['id' => "b-{$request}"] + self::EVENT);
        }

        $response = $this->post(['id' => 'one too many'] + self::EVENT);
        self::assertSame(429, $response->get_status());
        self::assertSame('60', $response->get_headers()['Retry-After']);

        $this->clock->move(60);
        self::assertSame(202, $this->post(['id' => 'a-minute-later'] + self::EVENT)->get_status());
    }

    public function test_an_event_reported_twice_waits_once(): void
    {
        $this->post(self::EVENT);
        $this->post(self::EVENT);

        self::assertCount(1, $this->outbox());
    }

    public function test_the_next_request_delivers_what_cron_did_not(): void
    {
        $this->add_events(['a', 'b']);

        $response = rest_do_request(new WP_REST_Request('POST', '/pmp/v1/drain'));
        rest_do_request(new WP_REST_Request('POST', '/pmp/v1/drain'));

        self::assertSame(204, $response->get_status());
        self::assertSame(['a', 'b'], $this->mesh->deliveries);
        self::assertCount(1, $this->mesh->calls);
    }

    public function test_where_cron_is_dead_the_browser_is_asked_to_have_it_delivered(): void
    {
        $this->add_events(['a']);
        $this->clock->move(299);
        self::assertArrayNotHasKey('overdue', $this->post(self::EVENT)->get_data(), 'cron still has its chance');

        $this->clock->move(2);
        self::assertTrue($this->post(['id' => 'b-2'] + self::EVENT)->get_data()['overdue']);
        self::assertSame([], $this->mesh->calls, 'a beacon itself never waits for the mesh');

        rest_do_request(new WP_REST_Request('POST', '/pmp/v1/drain'));
        self::assertSame(['a', 'b-1', 'b-2'], $this->mesh->deliveries);
    }

    public function test_nobody_is_asked_to_have_something_delivered_while_the_mesh_is_left_alone(): void
    {
        $this->mesh->mood = 'throttled';
        $this->add_events(['a']);
        $this->clock->move(301);
        $this->drain();

        self::assertArrayNotHasKey('overdue', $this->post(self::EVENT)->get_data());
    }

    public function test_who_asks_for_deliveries_all_the_time_is_not_heard(): void
    {
        for ($request = 0; $request < 120; ++$request) {
            rest_do_request(new WP_REST_Request('POST', '/pmp/v1/drain'));
        }
        $this->add_events(['a']);

        self::assertSame(204, rest_do_request(new WP_REST_Request('POST', '/pmp/v1/drain'))->get_status());
        self::assertSame([], $this->mesh->calls);
    }

    public function test_visitors_can_not_make_the_shop_hammer_a_mesh_in_trouble(): void
    {
        $this->mesh->mood = 'hanging';
        $this->add_events(['a']);
        for ($request = 0; $request < 50; ++$request) {
            rest_do_request(new WP_REST_Request('POST', '/pmp/v1/drain'));
        }

        self::assertCount(1, $this->mesh->calls);
    }

    /**
     * @param array<mixed>          $body
     * @param array<string, string> $headers
     */
    private function post(array $body, array $headers = [], string $path = '/pmp/v1/collect'): WP_REST_Response
    {
        return $this->send((string) json_encode($body), $headers, $path);
    }

    /**
     * @param array<string, string> $headers
     */
    private function send(string $body, array $headers = [], string $path = '/pmp/v1/collect'): WP_REST_Response
    {
        $request = new WP_REST_Request('POST', $path);
        $request->set_headers($headers + ['content-type' => 'text/plain;charset=UTF-8']);
        $request->set_body($body);
        return rest_do_request($request);
    }
}

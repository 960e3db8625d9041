<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Reports\Paths;
use PMP\Analytics\Reports\Query;
use PMP\Analytics\Reports\Reports;
use WP_REST_Request;
use WP_REST_Response;

/**
 * The dashboard in wp-admin asks for figures.
 */
final class ReportsTest extends SiteTestCase
{
    private const DASHBOARD = '/api/v1/analytics/dashboard';

    private const REPORT = '/api/v1/analytics/reports';

    protected function setUp(): void
    {
        parent::setUp();
        $this->mesh->known[self::DASHBOARD] = ['figures' => [['key' => 'orders', 'value' => 7]]];
        $this->mesh->known[self::REPORT] = ['rows' => [['customer' => '019a']]];
        wp_set_current_user(1);
    }

    protected function tearDown(): void
    {
        unset($_SERVER['QUERY_STRING']);
        parent::tearDown();
    }

    public function test_an_answer_is_passed_on_as_it_came_with_a_token_that_only_reads(): void
    {
        $answer = $this->ask(self::DASHBOARD, 'from=2026-11-01&to=2026-11-22&_wpnonce=x');

        self::assertSame([200, '{"figures":[{"key":"orders","value":7}]}'], [$answer->get_status(), $answer->get_data()]);
        self::assertSame(['application/json', '0'], [$answer->get_headers()['Content-Type'], $answer->get_headers()['X-PMP-Age']]);
        [$call] = $this->mesh->calls;
        self::assertSame(['GET', 'from=2026-11-01&to=2026-11-22'], [$call['method'], $call['query']]);
        [, $claims] = explode('.', $call['arguments']['headers']['Authorization']);
        self::assertSame('read', json_decode(base64_decode(strtr($claims, '-_', '+/')), true)['scope']);
    }

    public function test_equal_questions_cost_one_call_a_minute(): void
    {
        $this->ask(self::DASHBOARD, 'from=2026-11-01&to=2026-11-22');
        $this->clock->move(59);
        $answer = $this->ask(self::DASHBOARD, 'to=2026-11-22&from=2026-11-01');
        self::assertSame([1, '59'], [count($this->mesh->calls), $answer->get_headers()['X-PMP-Age']]);

        $this->ask(self::DASHBOARD, 'to=2026-11-22&from=2026-11-02');
        $this->clock->move(1);
        $this->ask(self::DASHBOARD, 'from=2026-11-01&to=2026-11-22');
        self::assertCount(3, $this->mesh->calls);
    }

    /**
     * @return array<string, array{string}>
     */
    public static function outages(): array
    {
        return ['down' => ['down'], 'hanging' => ['hanging'], 'garbage' => ['garbage'], 'broken' => ['broken']];
    }

    /**
     * @dataProvider outages
     */
    public function test_while_the_mesh_is_away_the_last_sums_are_shown_with_their_age(string $mood): void
    {
        $known = $this->ask(self::DASHBOARD);
        $this->ask(self::REPORT);
        $this->mesh->mood = $mood;
        $this->clock->move(7200);

        $answer = $this->ask(self::DASHBOARD);

        self::assertSame([200, $known->get_data()], [$answer->get_status(), $answer->get_data()]);
        self::assertGreaterThanOrEqual(7200, (int) $answer->get_headers()['X-PMP-Age']);
        self::assertSame('1', $answer->get_headers()['X-PMP-Away']);
        self::assertSame(503, $this->ask(self::DASHBOARD, 'from=2020-01-01')->get_status(), 'another question was never answered');
    }

    public function test_what_may_name_a_person_is_gone_with_an_erasure(): void
    {
        global $wpdb;
        $this->ask(self::REPORT, 'report=customers');
        $kept = "SELECT COUNT(*) FROM {$wpdb->options} WHERE option_name LIKE '\\_transient\\_pmp\\_report\\_%'";
        self::assertSame('1', $wpdb->get_var($kept));
        $timeout = "SELECT option_value FROM {$wpdb->options} WHERE option_name LIKE '\\_transient\\_timeout\\_pmp\\_report\\_%'";
        self::assertLessThanOrEqual(time() + 60, (int) $wpdb->get_var($timeout));

        Reports::forget();

        self::assertSame('0', $wpdb->get_var($kept));
    }

    public function test_keys_that_the_mesh_does_not_accept_do_not_look_as_if_the_reader_were_signed_out(): void
    {
        $this->mesh->mood = 'unauthorized';
        $answer = $this->ask(self::DASHBOARD);

        self::assertSame(424, $answer->get_status());
        self::assertSame('The mesh does not accept the keys of this shop: HTTP 401 Jwt is expired', $answer->get_data()['message']);
    }

    public function test_only_reports_are_passed_on(): void
    {
        $this->mesh->known['/api/v1/users/1'] = ['user' => []];
        foreach (['/api/v1/users/1', '/api/v1/gdpr/requests/1', self::DASHBOARD . '/x', '/api/v1/analytics', '/metrics'] as $path) {
            self::assertSame(404, $this->ask($path)->get_status(), $path);
        }
        self::assertSame(404, $this->ask(self::DASHBOARD, '', 'POST')->get_status());
        self::assertSame([], $this->mesh->calls);
    }

    public function test_who_may_not_see_reports_and_who_has_no_nonce_gets_nothing(): void
    {
        self::assertSame(403, $this->ask(self::DASHBOARD, '', 'GET', 'forged')->get_status());
        self::assertSame(403, $this->ask(self::DASHBOARD, '', 'GET', '')->get_status());
        wp_set_current_user($this->customer());
        self::assertSame(403, $this->ask(self::DASHBOARD)->get_status());
        wp_set_current_user(0);
        self::assertSame(403, $this->ask(self::DASHBOARD)->get_status());
        self::assertSame([], $this->mesh->calls);

        wp_set_current_user($this->customer('manager', 'shop_manager'));
        self::assertSame(200, $this->ask(self::DASHBOARD)->get_status());
    }

    public function test_a_query_keeps_repeated_parameters_and_leaves_wordpresss_own_out(): void
    {
        $sent = 'to=2026-11-22&include=bots&rest_route=%2Fpmp&from=a+b&include=staff&_wpnonce=1&&_locale=user&x=%26';
        self::assertSame('from=a%20b&include=bots&include=staff&to=2026-11-22&x=%26', Query::of($sent));
        self::assertSame('', Query::of(''));
    }

    public function test_a_path_is_a_report_only_as_a_whole(): void
    {
        $paths = new Paths(['/api/v1/courses/{id}/performance']);
        self::assertSame('/api/v1/courses/pmp%20exam%3F/performance', $paths->find('/api/v1/courses/pmp exam?/performance'));
        foreach (['/api/v1/courses/../performance', '/api/v1/courses//performance', '/api/v1/courses/a/b/performance'] as $path) {
            self::assertSame('', $paths->find($path), $path);
        }
        self::assertSame('', $paths->find("/api/v1/courses/a/performance\n"));
    }

    private function ask(string $path, string $query = '', string $method = 'GET', ?string $nonce = null): WP_REST_Response
    {
        $_SERVER['QUERY_STRING'] = $query;
        $request = new WP_REST_Request($method, "/pmp/v1/mesh{$path}");
        $request->set_header('X-WP-Nonce', $nonce ?? wp_create_nonce('wp_rest'));
        return rest_do_request($request);
    }
}

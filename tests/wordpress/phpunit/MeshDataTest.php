<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use WP_Error;

/**
 * What WordPress's tools for personal data show and erase of what the mesh holds.
 */
final class MeshDataTest extends SiteTestCase
{
    private const ADA = 'ada@example.org';

    private const ID = '019aaaaa-0000-7000-8000-000000000000';

    private const OTHER = '019bbbbb-0000-7000-8000-000000000000';

    public function test_a_guest_is_erased_by_an_address_that_stands_in_no_path(): void
    {
        $steps = [['name' => 'suppress'], ['name' => 'erase purchases', 'tables' => [['table' => 'purchases', 'rows' => '2']]]];
        $this->answer('POST /api/v1/users/erase', ['id' => self::ID, 'state' => 'running']);
        $this->answer('/api/v1/gdpr/requests/' . self::ID, ['id' => self::ID, 'state' => 'done', 'steps' => $steps]);

        $result = $this->erased(1);

        self::assertSame([true, false, true], [$result['items_removed'], $result['items_retained'], $result['done']]);
        self::assertStringContainsString(self::ID, $result['messages'][0]);
        self::assertSame(['email' => self::ADA], $this->mesh->calls[0]['body']);
        self::assertSame('site', ClientTest::claims($this->mesh->calls[0]['arguments'])['scope']);
        foreach ($this->mesh->calls as $call) {
            self::assertStringNotContainsString('ada', $call['path']);
        }
    }

    public function test_an_account_is_erased_by_its_number_as_well_and_one_person_is_one_request(): void
    {
        $ada = $this->customer();
        $this->answer('POST /api/v1/users/erase', ['id' => self::ID, 'state' => 'running']);
        $this->answer("DELETE /api/v1/users/{$ada}/data", ['id' => self::OTHER, 'state' => 'running']);
        $this->answer('/api/v1/gdpr/requests/' . self::ID, ['id' => self::ID, 'state' => 'done']);
        $this->answer('/api/v1/gdpr/requests/' . self::OTHER, ['id' => self::OTHER, 'state' => 'done']);

        self::assertStringContainsString(self::ID . ', ' . self::OTHER, $this->erased(1)['messages'][0]);

        $this->answer("DELETE /api/v1/users/{$ada}/data", ['id' => self::ID, 'state' => 'done']);
        self::assertStringEndsWith('(' . self::ID . ').', $this->erased(1)['messages'][0]);
    }

    public function test_a_page_waits_some_seconds_and_the_next_one_asks_for_the_same_request(): void
    {
        $this->answer('POST /api/v1/users/erase', ['id' => self::ID, 'state' => 'running']);
        $this->answer('/api/v1/gdpr/requests/' . self::ID, ['id' => self::ID, 'state' => 'running']);
        $started = $this->clock->now();

        self::assertFalse($this->erased(1)['done']);
        self::assertLessThanOrEqual(6, $this->clock->now() - $started);
        $this->mesh->mood = 'down';
        self::assertFalse($this->erased(2)['done'], 'the mesh works on it though it does not answer');
        $this->mesh->mood = 'up';
        $this->answer('/api/v1/gdpr/requests/' . self::ID, ['id' => self::ID, 'state' => 'done']);
        $result = $this->erased(3);
        self::assertSame([false, true], [$result['items_removed'], $result['done']], 'it held nothing');

        $asked = array_filter($this->mesh->calls, static fn (array $call): bool => $call['method'] === 'POST');
        self::assertCount(1, $asked);
    }

    public function test_an_erasure_that_takes_long_goes_on_without_anybody_waiting(): void
    {
        $this->answer('POST /api/v1/users/erase', ['id' => self::ID, 'state' => 'running']);
        $this->answer('/api/v1/gdpr/requests/' . self::ID, ['id' => self::ID, 'state' => 'running']);
        for ($page = 1; ! ($result = $this->erased($page))['done']; ++$page) {
            self::assertLessThan(200, $page);
        }

        self::assertSame([false, true], [$result['items_removed'], $result['items_retained']]);
        self::assertStringContainsString('will continue automatically', $result['messages'][0]);
    }

    public function test_who_can_not_be_asked_is_named(): void
    {
        foreach (['down', 'garbage', 'unauthorized', 'throttled', 'broken'] as $mood) {
            $this->mesh->mood = $mood;
            $result = $this->erased(1);
            self::assertSame([false, true, true], [$result['items_removed'], $result['items_retained'], $result['done']], $mood);
            self::assertStringContainsString('could not be requested from the mesh', $result['messages'][0]);
            self::assertInstanceOf(WP_Error::class, $this->exported(1));
        }
    }

    public function test_without_a_mesh_there_is_nothing_to_show_or_erase(): void
    {
        $part = new \PMP\Analytics\Privacy\MeshData(
            new \PMP_API_Client(new UnsetConfig(), $this->clock),
            new UnsetConfig(),
            new \PMP\Analytics\Privacy\SubjectRequests(new \PMP_API_Client(new UnsetConfig(), $this->clock), $this->clock),
        );

        self::assertSame(['data' => [], 'done' => true], $part->export(self::ADA));
        self::assertTrue($part->erase(self::ADA)['done']);
        self::assertFalse($part->erase(self::ADA)['items_retained']);
    }

    public function test_every_row_of_the_archive_is_shown_once_in_the_group_of_its_section(): void
    {
        $ada = $this->customer();
        $this->answer('POST /api/v1/users/export', ['id' => self::ID, 'state' => 'running']);
        $this->answer("POST /api/v1/users/{$ada}/export", ['id' => self::OTHER, 'state' => 'running']);
        foreach ([self::ID, self::OTHER] as $id) {
            $path = "/api/v1/gdpr/requests/{$id}/archive";
            $download = ['path' => "{$path}?token=once"];
            $this->answer("/api/v1/gdpr/requests/{$id}", ['id' => $id, 'state' => 'done', 'download' => $download]);
            $this->mesh->known[$path] = [
                'request' => $id,
                'wordpress_data' => ['users' => [['email' => self::ADA, 'first_name' => '<b>Ada</b>', 'last_name' => null]]],
                'analytics_data' => ['events' => [['id' => 'e1', 'data' => ['device' => 'phone']], ['id' => 'e2', 'bot' => false]]],
                'purchase_history' => ['purchases' => [['amount' => '199.00', 'is_test' => false]]],
                'email_data' => [],
                'complete' => true,
            ];
        }

        $result = $this->exported(1);

        self::assertTrue($result['done']);
        $groups = array_count_values(array_column($result['data'], 'group_id'));
        self::assertSame([
            'pmp-analytics-mesh-wordpress_data' => 1,
            'pmp-analytics-mesh-analytics_data' => 2,
            'pmp-analytics-mesh-purchase_history' => 1,
        ], $groups);
        self::assertSame([
            ['name' => 'Table', 'value' => 'users'],
            ['name' => 'email', 'value' => self::ADA],
            ['name' => 'first_name', 'value' => '&lt;b&gt;Ada&lt;/b&gt;'],
        ], $result['data'][0]['data']);
        self::assertContains(['name' => 'data', 'value' => '{&quot;device&quot;:&quot;phone&quot;}'], $result['data'][1]['data']);
        self::assertCount(4, array_unique(array_column($result['data'], 'item_id')));
    }

    public function test_an_archive_that_can_not_be_read_is_an_error_and_not_an_empty_export(): void
    {
        $this->answer('POST /api/v1/users/export', ['id' => self::ID, 'state' => 'done']);
        $this->answer('/api/v1/gdpr/requests/' . self::ID, ['id' => self::ID, 'state' => 'done', 'download' => ['path' => '/api/v1/gone']]);

        self::assertInstanceOf(WP_Error::class, $this->exported(1));

        $this->mesh->known['/api/v1/gone'] = ['wordpress_data' => ['users' => [['email' => self::ADA]]]];
        self::assertInstanceOf(WP_Error::class, $this->exported(1), 'it broke off');
    }

    public function test_an_export_is_waited_for(): void
    {
        $this->answer('POST /api/v1/users/export', ['id' => self::ID, 'state' => 'running']);
        $this->answer('/api/v1/gdpr/requests/' . self::ID, ['id' => self::ID, 'state' => 'running']);

        self::assertSame(['data' => [], 'done' => false], $this->exported(1));
        $this->clock->move(700);
        self::assertInstanceOf(WP_Error::class, $this->exported(2));
    }

    /**
     * @param array<string, mixed> $request
     */
    private function answer(string $call, array $request): void
    {
        $this->mesh->known[$call] = ['success' => true, 'request' => $request];
    }

    /**
     * @return array{items_removed: bool, items_retained: bool, messages: list<string>, done: bool}
     */
    private function erased(int $page): array
    {
        $erasers = apply_filters('wp_privacy_personal_data_erasers', []);
        self::assertLessThan(
            array_search('pmp-analytics-mesh', array_keys($erasers), true),
            array_search('pmp-analytics', array_keys($erasers), true),
            'the outbox goes first',
        );
        return $erasers['pmp-analytics-mesh']['callback'](self::ADA, $page);
    }

    /**
     * @return array{data: list<array<string, mixed>>, done: bool}|WP_Error
     */
    private function exported(int $page): array|WP_Error
    {
        return apply_filters('wp_privacy_personal_data_exporters', [])['pmp-analytics-mesh']['callback'](self::ADA, $page);
    }
}
